//! Throwaway load.
use std::{collections::HashMap, sync::Arc, time::{Duration, Instant}};

use async_trait::async_trait;
use bytes::{Bytes, BufMut, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use trilby_component::{Result, state::*};
use trilby_core::{*, health::Health, invoke::*, metadata::*, metrics::Metrics, secrets::*, state::*};
use trilby_door_grpc::*;
use trilby_proto::runtime::v1::*;

struct Fixed(HashMap<String, Bytes>);
#[async_trait]
impl StateStore for Fixed {
    fn features(&self) -> &[Feature] { &[] }
    async fn get(&self, r: &GetRequest) -> Result<Option<Item>> {
        Ok(self.0.get(&r.key).map(|v| Item { value: v.clone(), etag: Some("2754185a-d475-4be6-bf2e-587ba177bb68".into()), metadata: Default::default() }))
    }
    async fn set(&self, _: &SetRequest) -> Result<()> { Ok(()) }
    async fn delete(&self, _: &DeleteRequest) -> Result<()> { Ok(()) }
}
struct None_;
#[async_trait]
impl NameResolver for None_ {
    async fn resolve(&self, _: &str, _: Option<&str>) -> std::result::Result<Option<Arc<dyn AppChannel>>, ChannelError> { Ok(None) }
}

fn api() -> Api {
    let id = Identity::new("myapp");
    let m = Metrics::default();
    let store = Arc::new(Fixed([("myapp||k1".to_owned(), Bytes::from(vec![b'x'; 128]))].into()));
    Api::new(Blocks {
        state: StateApi::new(&id, [StateComponent { name: "statestore".into(), store, key_prefix: KeyPrefix::AppId, encryption: None }], &m),
        secrets: SecretsApi::default(),
        invoke: InvokeApi::new(id.clone(), Arc::new(None_), HashMap::new(), None),
        metadata: MetadataApi::new(Facts::default()), health: Health::default(), app: id,
    })
}

fn cpu(pid: u32) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let f: Vec<&str> = s[s.rfind(')').unwrap()..].split(' ').collect();
    (f[12].parse::<f64>().unwrap() + f[13].parse::<f64>().unwrap()) / 100.0
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "server" {
        let mut b = if args[2] != "2" { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
        b.enable_all().build().unwrap().block_on(async {
            let l = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            eprintln!("{}", l.local_addr().unwrap());
            std::fs::write(&args[3], l.local_addr().unwrap().to_string()).unwrap();
            if args[2] == "base" {
                loop {
                    let (s, _) = l.accept().await.unwrap();
                    s.set_nodelay(true).unwrap();
                    tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).auto_date_header(false).serve_connection(TokioIo::new(s), hyper::service::service_fn(|r: http::Request<hyper::body::Incoming>| async move {
                        let _ = r.into_body().collect().await;
                        let t: http::HeaderMap = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))].into_iter().collect();
                        let b = http_body_util::StreamBody::new(futures_util::stream::iter([Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from_static(&[0; 180]))), Ok(http_body::Frame::trailers(t))]));
                        Ok::<_, std::convert::Infallible>(http::Response::builder().header("content-type", "application/grpc").body(b).unwrap())
                    })));
                }
            }
            GrpcDoor::new(api(), Options::default()).serve(l, std::future::pending()).await;
        });
    }
    let (addr, pid, secs) = (args[2].clone(), args[3].parse().unwrap(), args[4].parse().unwrap());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let message = GetStateRequest { store_name: "statestore".into(), key: "k1".into(), ..Default::default() };
        let mut framed = BytesMut::new();
        framed.put_u8(0); framed.put_u32(message.encoded_len() as u32); message.encode(&mut framed).unwrap();
        let framed = framed.freeze();
        let (before, start) = (cpu(pid), Instant::now());
        let end = start + Duration::from_secs(secs);
        let mut tasks = Vec::new();
        for _ in 0..16 {
            let (addr, framed) = (addr.clone(), framed.clone());
            tasks.push(tokio::spawn(async move {
                let s = tokio::net::TcpStream::connect(addr).await.unwrap();
                s.set_nodelay(true).unwrap();
                let (mut send, conn) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(s)).await.unwrap();
                tokio::spawn(conn);
                let mut n = 0u64;
                while Instant::now() < end {
                    let r = http::Request::post("http://localhost/dapr.proto.runtime.v1.Dapr/GetState")
                        .header("content-type", "application/grpc").header("te", "trailers").header("user-agent", "load")
                        .body(Full::new(framed.clone())).unwrap();
                    let r = send.send_request(r).await.unwrap();
                    let c = r.into_body().collect().await.unwrap();
                    assert_eq!(c.trailers().unwrap()["grpc-status"], "0");
                    assert!(c.to_bytes().len() > 128);
                    n += 1;
                }
                n
            }));
        }
        let mut total = 0;
        for t in tasks { total += t.await.unwrap(); }
        let used = cpu(pid) - before;
        println!("{total} calls, {used:.2} CPU s, {:.0} per CPU s, {:.0} per s", total as f64 / used, total as f64 / start.elapsed().as_secs_f64());
    });
}
