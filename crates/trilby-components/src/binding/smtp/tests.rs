//! The binding against a small SMTP server.

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use super::*;

/// Takes mails and hands on what it was told, line by line; refuses recipients at `nowhere`.
async fn server() -> (u16, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, received) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                let (mut lines, mut in_data) = (Vec::new(), false);
                connection.write_all(b"220 ready\r\n").await.expect("greeted");
                loop {
                    let mut line = String::new();
                    if connection.read_line(&mut line).await.unwrap_or(0) == 0 {
                        break;
                    }
                    let line = line.trim_end().to_owned();
                    let answer = match line.split([' ', ':']).next().unwrap_or_default() {
                        "." if in_data => {
                            in_data = false;
                            "250 taken\r\n"
                        }
                        _ if in_data => "",
                        "EHLO" => "250-here\r\n250 AUTH PLAIN LOGIN\r\n",
                        "AUTH" => "235 welcome\r\n",
                        "RCPT" if line.contains("@nowhere") => "550 no such mailbox\r\n",
                        "DATA" => {
                            in_data = true;
                            "354 go on\r\n"
                        }
                        "QUIT" => "221 bye\r\n",
                        _ => "250 ok\r\n",
                    };
                    connection.write_all(answer.as_bytes()).await.expect("answered");
                    lines.push(line);
                }
                let _ = sender.send(lines).await;
            });
        }
    });
    (port, received)
}

async fn opened(properties: &[(&str, &str)]) -> Result<Arc<Binding>> {
    open(OpenRequest { name: "mail".to_owned(), properties: properties.iter().copied().collect() }).await
}

async fn send(binding: &Binding, metadata: &[(&str, &str)], data: &'static str) -> Result<InvokeResponse, InvokeError> {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = InvokeRequest { operation: "create".to_owned(), data: data.into(), metadata };
    binding.output.as_ref().expect("an output").invoke(&request).await
}

#[tokio::test]
async fn a_mail_is_sent_as_component_and_call_say() {
    let (port, mut received) = server().await;
    let binding = opened(&[
        ("host", "127.0.0.1"),
        ("port", &port.to_string()),
        ("user", "me"),
        ("password", "secret"),
        ("emailFrom", "shop@example.com"),
        ("emailTo", "a@example.com; B <b@example.com>"),
        ("subject", "from the component"),
    ])
    .await
    .expect("opens");
    let own = [("subject", "from the call"), ("emailBCC", "hidden@example.com"), ("priority", "5")];
    let answer = send(&binding, &own, r#""<b>hello</b>""#).await.expect("sent");
    assert_eq!(answer, InvokeResponse::default());
    drop(binding);
    let lines = received.recv().await.expect("a mail");
    let has = |text: &str| lines.iter().any(|line| line == text);
    for line in [
        "MAIL FROM:<shop@example.com>",
        "RCPT TO:<a@example.com>",
        "RCPT TO:<b@example.com>",
        "RCPT TO:<hidden@example.com>",
        "Subject: from the call",
        "X-Priority: 5",
        "From: shop@example.com",
        "<b>hello</b>",
    ] {
        assert!(has(line), "{line} in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("AUTH PLAIN ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("Content-Type: text/html")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("Bcc:")), "{lines:#?}");
}

#[tokio::test]
async fn what_a_mail_lacks_is_named() {
    let (port, _received) = server().await;
    let binding = opened(&[("host", "127.0.0.1"), ("port", &port.to_string())]).await.expect("opens");
    let all = [("emailFrom", "a@example.com"), ("emailTo", "b@nowhere"), ("subject", "s")];
    for (index, name) in ["emailFrom", "emailTo", "subject"].into_iter().enumerate() {
        let mut some = all.to_vec();
        some.remove(index);
        let error = send(&binding, &some, "x").await.expect_err(name).error;
        let expect = format!("smtp binding error: {name} property not supplied in configuration- or request-metadata");
        assert_eq!(error.to_string(), expect);
    }
    let error = send(&binding, &all, "x").await.expect_err("no such mailbox").error;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("error from smtp binding, sending email failed: "), "{error}");
    let odd = [all[0], ("emailTo", "nobody"), all[2]];
    let error = send(&binding, &odd, "x").await.expect_err("no address").error;
    assert!(error.to_string().starts_with("smtp binding error: \"nobody\": "), "{error}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let server = [("host", "h"), ("port", "25")];
    for (more, expect) in [
        (&[][..], "smtp binding error: host and port fields are required in metadata"),
        (
            &[server[0], server[1], ("user", "u")],
            "smtp binding error: both user and password fields are required in metadata",
        ),
        (
            &[server[0], server[1], ("priority", "6")],
            "smtp binding error:  priority value must be between 1 (highest) and 5 (lowest)",
        ),
    ] {
        assert_eq!(opened(more).await.err().expect("refused").to_string(), expect);
    }
}
