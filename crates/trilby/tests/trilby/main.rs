//! Whole runtimes: what they share, what they answer, how they start and end.

mod support;

#[cfg(feature = "wasm")]
mod guests;

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};
use trilby::{
    Address, AppSpec, Body, Ctx, DoorSettings, Embedded, Env, Error, Listener, Request, Response, Stop, Trilby,
    core::pubsub::{Event, Outcome, Publish},
    door_grpc, door_http,
    http::StatusCode,
};

use support::{anywhere, echo, get, post, read, save, send, text, with_memory};

#[tokio::test]
async fn two_runtimes_in_one_process_share_nothing() {
    let start = async |answer: &'static str| {
        let app = AppSpec::function("app", move |_| async move { Response::new(Body::from(answer)) });
        with_memory().app(app).start().await.expect("starts")
    };
    let (one, two) = (start("one").await, start("two").await);
    save(&one, "app", "key", "of one").await;
    assert_eq!(read(&one, "app", "key").await.as_deref(), Some("of one"));
    assert_eq!(read(&two, "app", "key").await, None);
    assert_eq!(text(one.invoke("app", get("/")).await.expect("answers")).await, "one");
    assert_eq!(text(two.invoke("app", get("/")).await.expect("answers")).await, "two");
    assert!(one.metrics().render().contains("operation=\"set\""));
    assert!(!two.metrics().render().contains("operation=\"set\""));

    one.shutdown().await;
    assert_eq!(text(two.invoke("app", get("/")).await.expect("still answers")).await, "two");
    two.shutdown().await;
}

#[tokio::test]
async fn apps_call_each_other_by_id() {
    let trilby = with_memory().app(echo("a")).app(echo("b")).app(AppSpec::caller("c")).start().await.expect("starts");
    let call = async |from: &str, to: &str| {
        let answer = trilby.api(from).expect("it runs").invoke.call(&Ctx::default(), to, get("/x")).await;
        answer.map_err(|error| error.to_string())
    };
    assert_eq!(text(call("a", "b").await.expect("answers")).await, "b /x");
    assert_eq!(text(call("c", "a").await.expect("answers")).await, "a /x");
    let error = call("a", "c").await.expect_err("nobody there");
    assert_eq!(error, "failed to invoke, id: c, err: cannot invoke local endpoint: app channel not initialized");
    let error = call("a", "d").await.expect_err("nobody there");
    assert_eq!(error, "failed to invoke, id: d, err: couldn't find service: d");
    let error = trilby.invoke("d", get("/")).await.expect_err("nobody there");
    assert_eq!(error.to_string(), "failed to invoke, id: d, err: couldn't find service: d");
    assert_eq!(trilby.app_ids().collect::<Vec<_>>(), ["a", "b", "c"]);
    trilby.shutdown().await;
}

#[tokio::test]
async fn an_apps_doors_serve_its_own_blocks() {
    let trilby = with_memory()
        .app(echo("a").http(anywhere()).public(anywhere()))
        .app(echo("b").http(anywhere()))
        .start()
        .await
        .expect("starts");
    let url = |app: &str, path: &str| format!("http://{}{path}", trilby.http_address(app).expect("listens"));
    let saved = send(post(&url("a", "/v1.0/state/statestore"), r#"[{"key": "k", "value": 1}]"#)).await;
    assert_eq!(saved.0, StatusCode::NO_CONTENT);
    assert_eq!(send(get(&url("a", "/v1.0/state/statestore/k"))).await, (StatusCode::OK, "1".into()));
    assert_eq!(
        send(get(&url("b", "/v1.0/state/statestore/k"))).await.0,
        StatusCode::NO_CONTENT,
        "keys are an app's own"
    );
    assert_eq!(send(get(&url("b", "/v1.0/invoke/a/method/m"))).await, (StatusCode::OK, "a /m".into()));
    assert_eq!(send(get(&url("a", "/v1.0/healthz"))).await.0, StatusCode::NO_CONTENT);

    let public = format!("http://{}", trilby.public_address("a").expect("listens"));
    assert_eq!(send(get(&format!("{public}/v1.0/healthz"))).await.0, StatusCode::NO_CONTENT);
    assert_eq!(send(get(&format!("{public}/v1.0/state/statestore/k"))).await.0, StatusCode::NOT_FOUND);
    trilby.shutdown().await;
}

#[tokio::test]
async fn a_grpc_door_answers_and_a_grpc_app_is_reached() {
    let server = with_memory().app(AppSpec::caller("server").grpc(anywhere())).start().await.expect("starts");
    let port = server.grpc_address("server").expect("listens").port();
    let app = AppSpec::grpc_server("remote", door_grpc::app::Options::new(port));
    let trilby = Trilby::builder().app(app).start().await.expect("starts");
    // To this runtime the door of the other is an app like any: the call is passed through.
    let mut request = post("/dapr.proto.runtime.v1.Dapr/GetMetadata", "\0\0\0\0\0");
    request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    request.headers_mut().insert("te", "trailers".parse().expect("a value"));
    let api = trilby.api("remote").expect("it runs");
    let answer = api.invoke.proxy(&Ctx::default(), "remote", request).await.expect("answers");
    let message = answer.into_body().collect(1 << 20).await.expect("a message");
    let names = |name: &[u8]| message.windows(name.len()).any(|window| window == name);
    assert!(names(b"server") && names(b"statestore"), "{message:?}");
    trilby.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn an_ingress_passes_the_world_on_to_the_app() {
    let app = AppSpec::function("a", |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect(1 << 20).await.expect("a body");
        let header = parts.headers.get("x-own").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Response::new(Body::from(format!("{} {} {header} {}", parts.method, parts.uri, body.len())))
    });
    let trilby = Trilby::builder()
        .app(app.ingress(anywhere()))
        .app(AppSpec::caller("nobody").ingress(anywhere()))
        .start()
        .await
        .expect("starts");
    let url = format!("http://{}/a//b/%2e%2e?q=1", trilby.ingress_address("a").expect("listens"));
    let mut request = post(&url, "12345");
    request.headers_mut().insert("x-own", "h".parse().expect("a value"));
    assert_eq!(send(request).await, (StatusCode::OK, "POST /a//b/%2e%2e?q=1 h 5".into()));

    let url = format!("http://{}/", trilby.ingress_address("nobody").expect("listens"));
    assert_eq!(send(get(&url)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    trilby.shutdown().await;
}

#[tokio::test]
async fn an_app_that_is_a_server_is_ready_when_its_port_is() {
    let free = TcpListener::bind(anywhere()).await.expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let app = AppSpec::http_server("remote", door_http::app::Options::new(address.port()));
    let trilby = Trilby::builder().app(app).start().await.expect("starts before its app");
    let health = &trilby.api("remote").expect("it runs").health;
    assert!(health.check_outbound().is_ok());
    assert!(health.check().is_err(), "nothing listens there yet");

    let server = Trilby::builder().app(echo("server").ingress(address)).start().await.expect("the port is free");
    let ready = async {
        while health.check().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), ready).await.expect("ready in the end");
    assert_eq!(text(trilby.invoke("remote", get("/x")).await.expect("answers")).await, "server /x");
    trilby.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn shutdown_lets_calls_finish_and_then_nobody_listens() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (entering, leaving) = (Arc::clone(&entered), Arc::clone(&leave));
    let slow = AppSpec::function("slow", move |_| {
        let (entering, leaving) = (Arc::clone(&entering), Arc::clone(&leaving));
        async move {
            entering.notify_one();
            leaving.notified().await;
            Response::new(Body::from("done"))
        }
    });
    let trilby = Trilby::builder().app(slow.ingress(anywhere())).start().await.expect("starts");
    let address = trilby.ingress_address("slow").expect("listens");
    let call = tokio::spawn(async move { send(get(&format!("http://{address}/"))).await });
    entered.notified().await;
    let stopping = tokio::spawn(trilby.shutdown());
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    leave.notify_one();
    assert_eq!(call.await.expect("answered"), (StatusCode::OK, "done".into()));
    timeout(Duration::from_secs(10), stopping).await.expect("ends").expect("no panic");
}

#[tokio::test]
async fn a_dropped_runtime_gives_its_ports_back() {
    let trilby = Trilby::builder().app(echo("a").http(anywhere()).ingress(anywhere())).start().await.expect("starts");
    let addresses = [trilby.http_address("a"), trilby.ingress_address("a")];
    drop(trilby);
    for address in addresses {
        let address = address.expect("it listened");
        let gone = async { while TcpStream::connect(address).await.is_ok() {} };
        timeout(Duration::from_secs(10), gone).await.expect("closed");
    }
}

#[tokio::test]
async fn an_app_may_ask_for_the_end() {
    let trilby = Trilby::builder().app(echo("a").http(anywhere())).start().await.expect("starts");
    let address = trilby.http_address("a").expect("listens");
    assert_eq!(send(post(&format!("http://{address}/v1.0/shutdown"), "")).await.0, StatusCode::NO_CONTENT);
    let stop = timeout(Duration::from_secs(10), trilby.stop_asked()).await.expect("heard");
    assert_eq!(stop, Stop { app_id: "a".into(), forced: false });
    trilby.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_door_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("http.socket");
    let trilby = Trilby::builder().app(echo("a").http(path.clone())).start().await.expect("starts");
    assert!(path.exists());
    assert_eq!(trilby.http_address("a"), None);
    trilby.shutdown().await;
    assert!(!path.exists(), "its file is removed");
}

#[tokio::test]
async fn embedded_components_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = async || {
        let embedded = Embedded { dir: directory.path().join("data") };
        Trilby::builder().embedded(embedded).app(AppSpec::caller("a")).start().await.expect("starts")
    };
    let trilby = start().await;
    save(&trilby, "a", "k", "v").await;
    trilby.shutdown().await;

    std::fs::write(directory.path().join("data/secrets.json"), r#"{"key": "hush"}"#).expect("writable");
    let trilby = start().await;
    assert_eq!(read(&trilby, "a", "k").await.as_deref(), Some("v"));
    let api = trilby.api("a").expect("it runs");
    let secret = api.secrets.get(&Ctx::default(), "secretstore", "key", &Default::default()).await.expect("there");
    assert_eq!(secret["key"], "hush");
    trilby.shutdown().await;
}

#[tokio::test]
async fn a_configuration_closes_an_api_of_its_door() {
    let config = "spec: {api: {denied: [{name: state, version: $VERSION, protocol: http}]}}";
    let trilby = with_memory()
        .env([("VERSION", "v1.0")].into_iter().collect::<Env>())
        .config_text("config.yaml", config)
        .app(echo("closed").http(anywhere()))
        .app(echo("open").http(anywhere()).configuration(Default::default()))
        .start()
        .await
        .expect("starts");
    let status = async |app| {
        let address = trilby.http_address(app).expect("listens");
        send(get(&format!("http://{address}/v1.0/state/statestore/k"))).await.0
    };
    assert_eq!(status("closed").await, StatusCode::NOT_FOUND);
    assert_eq!(status("open").await, StatusCode::NO_CONTENT);
    trilby.shutdown().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_stays_open() {
    let taken = TcpListener::bind(anywhere()).await.expect("a port");
    let address = taken.local_addr().expect("bound");
    let free = TcpListener::bind(anywhere()).await.expect("a port");
    let other = free.local_addr().expect("bound");
    drop(free);
    let error = Trilby::builder().app(echo("a").ingress(other).http(address)).start().await.err().expect("in use");
    assert!(
        matches!(&error, Error::Listen { listener: Listener::Http, address: Address::Tcp(found), .. } if *found == address)
    );
    let message = error.to_string();
    assert!(message.starts_with(&format!("app a: cannot listen on {address} for its HTTP API: ")), "{message}");
    assert!(message.ends_with("; choose another address or stop who has it"), "{message}");
    TcpListener::bind(other).await.expect("given back");
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let error = async |builder: trilby::Builder| builder.start().await.err().expect("bad input").to_string();
    let twice = Trilby::builder().app(echo("a")).app(echo("a"));
    assert_eq!(error(twice).await, "two apps have the id a; every app of a runtime needs an id of its own");
    let bad = Trilby::builder().resources_text("r.yaml", "a: [").app(echo("a"));
    assert!(error(bad).await.starts_with("r.yaml: document 1, line "));
    let missing = Trilby::builder().config_file("/missing/config.yaml").app(echo("a"));
    assert!(error(missing).await.starts_with("cannot read /missing/config.yaml: "));
    let mut options = door_http::app::Options::new(1);
    options.address = "no host".into();
    let app = Trilby::builder().app(AppSpec::http_server("a", options));
    assert!(error(app).await.starts_with("app a: app channel address no host is not a host"));
    Trilby::builder().strict(false).resources_text("r.yaml", "a: [").app(echo("a")).start().await.expect("skipped");
}

const BROKER: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broker}
spec: {type: pubsub.in-memory, version: v1}
";

fn publish(topic: &str, data: &str) -> Publish {
    Publish { topic: topic.into(), data: data.to_owned().into(), ..Publish::default() }
}

#[tokio::test]
async fn a_function_subscribes_and_apps_of_one_process_share_a_broker() {
    let (handled, mut seen) = mpsc::unbounded_channel();
    let handler = move |event: Event| {
        let handled = handled.clone();
        async move {
            handled.send((event.source().to_owned(), event.data())).expect("somebody looks");
            Outcome::Ack
        }
    };
    let trilby = Trilby::builder()
        .resources_text("broker", BROKER)
        .app(AppSpec::caller("billing").subscribe("broker", "placed", handler.clone()))
        .app(echo("shop").subscribe("broker", "paid", handler))
        .app(AppSpec::caller("other"))
        .start()
        .await
        .expect("starts");
    for (app, topic) in [("shop", "placed"), ("other", "paid"), ("billing", "paid")] {
        let api = trilby.api(app).expect("it runs");
        api.pubsub.publish(&Ctx::default(), "broker", publish(topic, topic)).await.expect("published");
        let event = timeout(Duration::from_secs(5), seen.recv()).await.expect("delivered");
        assert_eq!(event, Some((app.to_owned(), topic.into())));
    }
    let listed = trilby.api("billing").expect("it runs").pubsub.subscriptions();
    assert_eq!(listed.iter().map(|one| one.topic.as_str()).collect::<Vec<_>>(), ["placed"]);
    timeout(Duration::from_secs(2), trilby.shutdown()).await.expect("nothing to wait for");
}

#[tokio::test]
async fn the_end_waits_for_a_handler_but_not_for_ever() {
    for (needs, finishes) in [(Duration::from_millis(200), true), (Duration::from_secs(60), false)] {
        let (handled, mut seen) = mpsc::unbounded_channel();
        let handler = move |_: Event| {
            let handled = handled.clone();
            async move {
                handled.send("begun").ok();
                tokio::time::sleep(needs).await;
                handled.send("done").ok();
                Outcome::Ack
            }
        };
        let doors = DoorSettings { drain_timeout: Duration::from_millis(600), ..DoorSettings::default() };
        let app = AppSpec::caller("app").doors(doors).subscribe("broker", "t", handler);
        let trilby = Trilby::builder().resources_text("broker", BROKER).app(app).start().await.expect("starts");
        let api = trilby.api("app").expect("it runs").clone();
        api.pubsub.publish(&Ctx::default(), "broker", publish("t", "x")).await.expect("published");
        assert_eq!(seen.recv().await, Some("begun"));
        drop(api);
        timeout(Duration::from_secs(5), trilby.shutdown()).await.expect("it ends");
        assert_eq!(seen.recv().await.is_some(), finishes, "{needs:?}");
    }
}
