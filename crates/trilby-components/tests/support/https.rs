//! An HTTP server of a test's own, with TLS as `localhost` if it wants that.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const CHAIN: &str = include_str!("../../../trilby-door-http/tests/door/tls/localhost.pem");
const KEY: &str = include_str!("../../../trilby-door-http/tests/door/tls/localhost.key");
/// Who vouches for the server.
pub(crate) const AUTHORITY: &str = include_str!("../../../trilby-door-http/tests/door/tls/ca.pem");

/// Starts a server that answers the head of each request with a status and JSON, and says at which port.
pub(crate) async fn serve(
    tls: bool,
    respond: impl Fn(&str) -> (u16, serde_json::Value) + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = tls.then(acceptor);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &acceptor {
                None => answer(stream, &respond).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream, &respond).await;
                    }
                }
            }
        }
    });
    port
}

fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(CHAIN.as_bytes()).collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.expect("they belong together")))
}

/// Answers one request.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    respond: &(impl Fn(&str) -> (u16, serde_json::Value) + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let (status, body) = respond(&String::from_utf8(head).expect("text"));
    let body = format!("{body}\n");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close"
    );
    let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}
