//! Requests that are broken, too large, or half there: each gets its status, and the next one is answered as ever.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use trilby_proto::{
    common::v1::StateItem,
    runtime::v1::{SaveStateRequest, dapr_client::DaprClient},
};

use crate::{
    IN_MEMORY, ask, status,
    support::{Daprd, DaprdOptions, HttpReply, HttpServer, http},
    text, within,
};

/// Dapr's `--max-body-size`, when nobody says another.
const MAX_BODY_BYTES: usize = 4 << 20;
/// More than a request head may have.
const LONG: usize = 9 << 10;

async fn start() -> Daprd {
    Daprd::start(DaprdOptions { components: IN_MEMORY.into(), ..DaprdOptions::default() }).await
}

async fn check_well(daprd: &Daprd, after: &str) {
    assert_eq!(status(daprd.http_port, "/v1.0/healthz").await, 204, "after {after}");
}

/// What a caller does when it has sent everything.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Listen,
    HalfClose,
}

/// Sends bytes as they are and reads until the server closes, which it has to. A reset is as good as an end.
async fn exchange(port: u16, sent: &[u8], then: Then) -> String {
    let exchanging = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        // A server may refuse before it has read everything.
        let _ = stream.write_all(sent).await;
        if then == Then::HalfClose {
            let _ = stream.shutdown().await;
        }
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        String::from_utf8_lossy(&received).into_owned()
    };
    let what = format!("the end of {:?}", String::from_utf8_lossy(&sent[..sent.len().min(60)]));
    within(Duration::from_secs(8), &what, exchanging).await
}

fn starts_with_status(answer: &str, status: u16) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
}

/// The bytes of a request whose sender wants the connection closed after it.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n").as_bytes(), body].concat()
}

#[tokio::test]
async fn who_half_closes_a_connection_is_answered_or_let_go() {
    let app = HttpServer::start(|request| HttpReply::new(200, request.body)).await;
    let options = DaprdOptions { components: IN_MEMORY.into(), app_port: Some(app.port), ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    let whole = b"GET /v1.0/healthz HTTP/1.1\r\nhost: h\r\n\r\n";
    let answer = exchange(daprd.http_port, whole, Then::HalfClose).await;
    assert!(starts_with_status(&answer, 204), "{answer}");
    let invoking = b"POST /v1.0/invoke/myapp/method/x HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\necho";
    let answer = exchange(daprd.http_port, invoking, Then::HalfClose).await;
    assert!(starts_with_status(&answer, 200) && answer.ends_with("echo"), "{answer}");

    for part in [&b""[..], b"GET", &whole[..whole.len() - 2]] {
        assert_eq!(exchange(daprd.http_port, part, Then::HalfClose).await, "", "{part:?}");
    }
    // Both are whole JSON, but not the whole body that was announced.
    let item = br#"[{"key": "half", "value": 1}]"#;
    let counted = request("POST /v1.0/state/mem", "content-length: 100\r\n", item);
    let chunked = [format!("{:x}\r\n", item.len()).as_bytes(), item, b"\r\n"].concat();
    let chunked = request("POST /v1.0/state/mem", "transfer-encoding: chunked\r\n", &chunked);
    for sent in [counted, chunked] {
        let answer = exchange(daprd.http_port, &sent, Then::HalfClose).await;
        assert!(starts_with_status(&answer, 400) && answer.contains("ERR_MALFORMED_REQUEST"), "{answer}");
    }
    assert_eq!(status(daprd.http_port, "/v1.0/state/mem/half").await, 204, "half a request changes nothing");
    daprd.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let app = HttpServer::start(|request| HttpReply::new(200, request.body.len().to_string())).await;
    let options = DaprdOptions { components: IN_MEMORY.into(), app_port: Some(app.port), ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    let item = |length: usize| {
        let (start, end) = (r#"[{"key": "large", "value": ""#, r#""}]"#);
        [start, &"x".repeat(length - start.len() - end.len()), end].concat()
    };
    let (fits, over) = (item(MAX_BODY_BYTES), item(MAX_BODY_BYTES + 1));
    assert_eq!(ask(daprd.http_port, "POST", "/v1.0/state/mem", fits.as_bytes()).await.status, 204);

    for path in ["/v1.0/state/mem", "/v1.0/state/mem/bulk", "/v1.0/state/mem/transaction"] {
        let answer = ask(daprd.http_port, "POST", path, over.as_bytes()).await;
        let text = text(&answer);
        assert_eq!(answer.status, 400, "{path}");
        assert!(text.contains("ERR_MALFORMED_REQUEST") && text.contains("4194304 bytes"), "{path}: {text}");
    }
    let chunk = [format!("{:x}\r\n", over.len()).as_bytes(), over.as_bytes(), b"\r\n0\r\n\r\n"].concat();
    let chunked = request("POST /v1.0/state/mem", "transfer-encoding: chunked\r\n", &chunk);
    let announced = request("POST /v1.0/state/mem", "content-length: 10000000000\r\n", b"[");
    for sent in [chunked, announced] {
        let answer = exchange(daprd.http_port, &sent, Then::HalfClose).await;
        assert!(starts_with_status(&answer, 400), "{answer}");
    }
    let invoke = "/v1.0/invoke/myapp/method/x";
    assert_eq!(text(&ask(daprd.http_port, "POST", invoke, fits.as_bytes()).await), MAX_BODY_BYTES.to_string());
    let answer = ask(daprd.http_port, "POST", invoke, over.as_bytes()).await;
    assert_eq!(answer.status, 500);
    assert!(text(&answer).contains("ERR_DIRECT_INVOKE"), "{}", text(&answer));
    check_well(&daprd, "bodies that are too large").await;
    daprd.stop().await;
}

#[tokio::test]
async fn a_grpc_message_over_the_limit_is_refused() {
    let daprd = start().await;
    let mut client = DaprClient::new(daprd.grpc_channel());
    for (length, expect) in [
        (MAX_BODY_BYTES - 1024, tonic::Code::Ok),
        (MAX_BODY_BYTES + 1, tonic::Code::ResourceExhausted),
        (1, tonic::Code::Ok),
    ] {
        let item = StateItem { key: "large".into(), value: vec![b'1'; length].into(), ..StateItem::default() };
        let saving = client.save_state(SaveStateRequest { store_name: "mem".into(), states: vec![item] });
        let answer = within(Duration::from_secs(8), "an answer", saving).await;
        assert_eq!(answer.err().map_or(tonic::Code::Ok, |status| status.code()), expect, "{length} bytes");
    }
    daprd.stop().await;
}

#[tokio::test]
async fn a_head_over_the_limit_gets_431() {
    let daprd = start().await;
    let long = "x".repeat(LONG);
    for sent in [
        request("GET /v1.0/healthz", &format!("long: {long}\r\n"), b""),
        request("GET /v1.0/healthz", &format!("{long}: short\r\n"), b""),
        request("GET /v1.0/healthz", &"many: 1\r\n".repeat(LONG / 9), b""),
        request(&format!("GET /v1.0/state/mem/{long}"), "", b""),
        request(&format!("GET /v1.0/state/mem/{}", long.repeat(10)), "", b""),
        request(&format!("GET /v1.0/state/mem/k?{long}"), "", b""),
    ] {
        let answer = exchange(daprd.http_port, &sent, Then::Listen).await;
        assert!(starts_with_status(&answer, 431), "{answer}");
    }
    let fits = request("GET /v1.0/healthz", &format!("long: {}\r\n", "x".repeat(7 << 10)), b"");
    assert!(starts_with_status(&exchange(daprd.http_port, &fits, Then::Listen).await, 204));
    daprd.stop().await;
}

#[tokio::test]
async fn a_head_that_is_none_gets_400() {
    let daprd = start().await;
    let post = |headers: &str| request("POST /v1.0/state/mem", headers, b"[]");
    let get = |headers: &str| request("GET /v1.0/healthz", headers, b"");
    for sent in [
        post("content-length: 2\r\ncontent-length: 4\r\n"),
        post("content-length: -2\r\n"),
        post("content-length: 2a\r\n"),
        post("content-length: 99999999999999999999999\r\n"),
        request("POST /v1.0/state/mem", "transfer-encoding: chunked\r\n", b"zz\r\n[]\r\n0\r\n\r\n"),
        request("POST /v1.0/state/mem", "transfer-encoding: chunked\r\n", b"fffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
        get("bad name: x\r\n"),
        get("nul: a\0b\r\n"),
        get("folded: a\r\n b\r\n"),
        get("no colon\r\n"),
        request("GET /v1.0/state/mem/a\x01b", "", b""),
        request("B@D /v1.0/healthz", "", b""),
        request("GET", "", b""),
        b"GET /v1.0/healthz HTTP/3.0\r\nhost: h\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
    ] {
        let answer = exchange(daprd.http_port, &sent, Then::Listen).await;
        assert!(starts_with_status(&answer, 400), "{answer:?} to {:?}", String::from_utf8_lossy(&sent));
    }
    check_well(&daprd, "heads that are none").await;
    daprd.stop().await;
}

#[tokio::test]
async fn what_is_not_grpc_is_let_go_by_the_grpc_port() {
    let daprd = start().await;
    for sent in [request("GET /", "", b""), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()] {
        let answer = exchange(daprd.grpc_port, &sent, Then::Listen).await;
        assert!(!starts_with_status(&answer, 200), "{answer:?}");
    }
    let mut client = DaprClient::new(daprd.grpc_channel());
    let saving = client.save_state(SaveStateRequest { store_name: "mem".into(), states: Vec::new() });
    within(Duration::from_secs(8), "an answer", saving).await.expect("gRPC goes on");
    daprd.stop().await;
}

#[tokio::test]
async fn bad_escapes_get_400_in_a_path_and_are_passed_over_in_a_query() {
    let daprd = start().await;
    for path in ["/v1.0/state/mem/%zz", "/v1.0/state/mem/%", "/v1.0/state/mem/a%2", "/v1.0/invoke/app/method/%g0"] {
        let answer = exchange(daprd.http_port, &request(&format!("GET {path}"), "", b""), Then::Listen).await;
        assert!(starts_with_status(&answer, 400) && answer.ends_with("400 Bad Request"), "{path}: {answer}");
    }
    for query in ["metadata.ttlInSeconds=%zz", "%", "&&=&", "metadata.a=1;b=2"] {
        assert_eq!(status(daprd.http_port, &format!("/v1.0/state/mem/k?{query}")).await, 204, "{query}");
    }
    daprd.stop().await;
}

#[tokio::test]
async fn broken_json_gets_400_and_changes_nothing() {
    let daprd = start().await;
    let deep = "[".repeat(1_000_000);
    for body in [
        "",
        "{",
        "[",
        "[{",
        "[{\"key\"",
        "nonsense",
        "true",
        "\"text",
        "[{\"key\": \"k\", \"value\": 1}",
        "[{\"key\": \"k\", \"value\": }]",
        "[{\"key\": \"k\", \"value\": 01}]",
        "[{\"key\": \"k\", \"value\": \"\\x\"}]",
        "[{\"key\": \"k\", \"value\": \"\n\"}]",
        "[{\"key\": \"k\", \"value\": 1}, {\"key\": 5, \"value\": 1}]",
        "[{\"key\": \"k\", \"value\": 1}, {\"value\": 1}]",
        "[{\"key\": \"k\", \"value\": 1}, null]",
        "\u{feff}[]",
        &deep,
    ] {
        for path in ["/v1.0/state/mem", "/v1.0/state/mem/bulk", "/v1.0/state/mem/transaction"] {
            let answer = ask(daprd.http_port, "POST", path, body.as_bytes()).await;
            let start = &body[..body.len().min(60)];
            assert_eq!(answer.status, 400, "{path} {start}: {}", text(&answer));
            assert!(text(&answer).contains("\"errorCode\":\"ERR_"), "{path} {start}: {}", text(&answer));
        }
    }
    assert_eq!(status(daprd.http_port, "/v1.0/state/mem/k").await, 204, "nothing was saved");
    daprd.stop().await;
}

#[tokio::test]
async fn a_content_type_does_not_matter_to_state() {
    let daprd = start().await;
    for (number, content_type) in
        ["text/plain", "application/xml", "multipart/form-data", "garbage;;", "application/grpc", ""].iter().enumerate()
    {
        let body = format!(r#"[{{"key": "k", "value": {number}}}]"#);
        let headers = [("content-type", *content_type)];
        let answer = http(daprd.http_port, "POST", "/v1.0/state/mem", &headers, body.as_bytes()).await;
        assert_eq!(answer.expect("an answer").status, 204, "{content_type}");
        assert_eq!(text(&ask(daprd.http_port, "GET", "/v1.0/state/mem/k", b"").await), number.to_string());
    }
    daprd.stop().await;
}

/// As in Go: HTTP/1.1 wants to know the host, and only one.
#[tokio::test]
async fn a_request_without_one_host_gets_400() {
    let daprd = start().await;
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let sent = format!("GET /v1.0/healthz HTTP/1.1\r\nconnection: close\r\n{hosts}\r\n");
        let answer = exchange(daprd.http_port, sent.as_bytes(), Then::Listen).await;
        assert!(starts_with_status(&answer, 400), "{hosts:?}: {answer}");
    }
    daprd.stop().await;
}

/// Go's decoder takes text that is no Unicode, with U+FFFD for it. What it refuses is the caller's mistake; so is what is
/// nested deeper than the stores read, which is more than Go's would.
#[tokio::test]
async fn odd_json_is_taken_or_refused_but_never_breaks_anything() {
    let daprd = start().await;
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat().into_bytes();
    for (value, expect) in [
        (nested(127), 204),
        (nested(128), 400),
        (nested(1_000_000), 400),
        (br#""\ud800""#.to_vec(), 204),
        (b"\"\xff\"".to_vec(), 204),
        (b"1e999999".to_vec(), 400),
    ] {
        let start = String::from_utf8_lossy(&value[..value.len().min(20)]).into_owned();
        let item = [&br#"{"key": "odd", "value": "#[..], &value, b"}"].concat();
        let list = [&b"["[..], &item, b"]"].concat();
        let answer = ask(daprd.http_port, "POST", "/v1.0/state/mem", &list).await;
        assert_eq!(answer.status, expect, "{} bytes {start}: {}", value.len(), text(&answer));
        let steps = [&br#"{"operations": [{"operation": "upsert", "request": "#[..], &item, b"}]}"].concat();
        let answer = ask(daprd.http_port, "POST", "/v1.0/state/mem/transaction", &steps).await;
        assert_eq!(answer.status, expect, "{} bytes {start}: {}", value.len(), text(&answer));
    }
    daprd.stop().await;
}

/// As in Go: the number of headers has no limit of its own.
#[tokio::test]
async fn many_small_headers_are_fine() {
    let daprd = start().await;
    let sent = request("GET /v1.0/healthz", &"many: 1\r\n".repeat(400), b"");
    let answer = exchange(daprd.http_port, &sent, Then::Listen).await;
    assert!(starts_with_status(&answer, 204), "{answer}");
    daprd.stop().await;
}
