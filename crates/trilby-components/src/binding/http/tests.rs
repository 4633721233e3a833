//! The binding against a server that answers with what it was asked.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Answers `/STATUS` with that status; else 200, and in the body what came. `/to/X` leads to `/X`.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !is_whole(&request) && connection.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                let (status, head) = match (path.strip_prefix("/to"), path[1..].parse::<u16>()) {
                    (Some(to), _) => ("302 Found".to_owned(), format!("location: {to}\r\n")),
                    (None, Ok(204)) => ("204 No Content".to_owned(), String::new()),
                    (None, Ok(status)) => (format!("{status} As Asked"), String::new()),
                    (None, Err(_)) => ("200 OK".to_owned(), "x-many: 1\r\nx-many: 2\r\n".to_owned()),
                };
                let body = if status.starts_with("204") { String::new() } else { text };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = connection.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

async fn opened(properties: &[(&str, &str)]) -> Result<Arc<Binding>> {
    open(OpenRequest { name: "web".to_owned(), properties: properties.iter().copied().collect() }).await
}

async fn call(
    properties: &[(&str, &str)],
    operation: &str,
    metadata: &[(&str, &str)],
) -> Result<InvokeResponse, InvokeError> {
    let binding = opened(properties).await.expect("opens");
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = InvokeRequest { operation: operation.to_owned(), data: "{}".into(), metadata };
    binding.output.as_ref().expect("an output").invoke(&request).await
}

fn text(response: &InvokeResponse) -> String {
    String::from_utf8(response.data.clone().expect("data").to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_call_becomes_a_request_and_the_answer_its_answer() {
    let url = server().await;
    let metadata = [("path", "/a/../b?c=d"), ("X-Y", "z"), ("traceparent", "t"), ("other", "no")];
    let answer = call(&[("url", &format!("{url}/web/"))], "post", &metadata).await.expect("answers");
    let sent = text(&answer);
    assert!(sent.starts_with("POST /web/a/../b?c=d HTTP/1.1\r\n"), "{sent}");
    for line in ["content-type: application/json; charset=utf-8", "x-y: z", "traceparent: t"] {
        assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line} in {sent}");
    }
    assert!(!sent.contains("other"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n{}"), "{sent}");
    let shown = |name: &str| answer.metadata.get(name).map(String::as_str);
    assert_eq!((shown("statusCode"), shown("status"), shown("X-Many")), (Some("200"), Some("200 OK"), Some("1, 2")));
}

#[tokio::test]
async fn only_some_methods_have_a_body() {
    let url = server().await;
    for (operation, method, has_body) in
        [("create", "POST", true), ("put", "PUT", true), ("get", "GET", false), ("delete", "DELETE", false)]
    {
        let sent = text(&call(&[("url", &url)], operation, &[]).await.expect("answers"));
        assert!(sent.starts_with(method), "{sent}");
        assert_eq!((sent.ends_with("{}"), sent.contains("content-type")), (has_body, has_body), "{sent}");
    }
}

#[tokio::test]
async fn a_status_of_failure_is_an_error_unless_it_is_not_to_be_one() {
    let url = server().await;
    let path = ("path", "404");
    let failure = call(&[("url", &url)], "get", &[path]).await.expect_err("not found");
    assert_eq!(failure.error.to_string(), "received status code 404");
    assert_eq!(failure.response.expect("an answer").metadata["status"], "404 As Asked");
    let lenient = [("url", url.as_str()), ("errorIfNot2XX", "false")];
    assert_eq!(call(&lenient, "get", &[path]).await.expect("no error").metadata["statusCode"], "404");
    assert!(call(&lenient, "get", &[path, ("errorIfNot2XX", "true")]).await.is_err());
    assert!(call(&[("url", &url)], "get", &[path, ("errorIfNot2XX", "false")]).await.is_ok());
}

#[tokio::test]
async fn answers_are_cut_at_the_limit() {
    let url = server().await;
    let answer = call(&[("url", &url), ("maxResponseBodySize", "4")], "get", &[]).await.expect("answers");
    assert_eq!(text(&answer), "GET ");
    let answer = call(&[("url", &url), ("maxResponseBodySize", "-1")], "get", &[("path", "204")]).await;
    assert_eq!(answer.expect("answers").data, Some(Bytes::new()));
}

#[tokio::test]
async fn redirects_are_followed_without_the_body() {
    let url = server().await;
    let sent = text(&call(&[("url", &url)], "post", &[("path", "to/to/there")]).await.expect("answers"));
    assert!(sent.starts_with("GET /there ") && !sent.ends_with("{}"), "{sent}");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let properties = [("url", &*format!("http://{address}")), ("responseTimeout", "50ms")];
    let failure = call(&properties, "get", &[]).await.expect_err("silent");
    assert_eq!(failure.error.kind(), ErrorKind::Timeout);
    drop(silent);
    let failure = call(&[properties[0]], "get", &[]).await.expect_err("gone");
    assert_eq!(failure.error.kind(), ErrorKind::Unavailable);
    assert!(failure.error.to_string().contains(&address), "{}", failure.error);
    let failure = call(&[("url", "ftp://x")], "get", &[]).await.expect_err("another protocol");
    assert!(failure.error.to_string().contains("unsupported protocol scheme"), "{}", failure.error);
}

#[tokio::test]
async fn certificates_are_read_when_it_is_opened() {
    let error = opened(&[("url", "https://x"), ("MTLSRootCA", "no/such.pem")]).await.err().expect("missing");
    let start = "provided \"MTLSRootCA\" value is neither a valid file path or nor a valid pem encoded string: ";
    assert!(error.to_string().starts_with(start), "{error}");
    let error = opened(&[("url", "https://x"), ("mtlsRenegotiation", "Always")]).await.err().expect("unknown");
    assert_eq!(error.to_string(), "invalid renegotiation value: Always");
}
