//! `daprd --wait`: waits until another daprd can be called, so that whatever follows in a script can call it.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);
const TRY_LIMIT: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits for the daprd whose HTTP API is at this port. Fails after a minute.
pub(super) fn until_outbound_ready(port: &str) -> ExitCode {
    let url = format!("http://localhost:{port}/v1.0/healthz/outbound");
    eprintln!("Waiting for Dapr to be outbound ready (timeout: {} seconds): url={url}", LIMIT.as_secs());
    let started = Instant::now();
    loop {
        let problem = match ask(port) {
            Ok(status) if status.contains(" 204") => {
                eprintln!("Dapr is outbound ready!");
                return ExitCode::SUCCESS;
            }
            Ok(status) => format!("the answer was {}", status.trim()),
            Err(error) => error.to_string(),
        };
        if started.elapsed() > LIMIT {
            eprintln!("timeout waiting for Dapr to become outbound ready. Last error: {problem}");
            return ExitCode::FAILURE;
        }
        thread::sleep(INTERVAL);
    }
}

/// The status line of the answer.
fn ask(port: &str) -> io::Result<String> {
    let addresses = format!("localhost:{port}").to_socket_addrs()?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, TRY_LIMIT) {
            Ok(stream) => return status_line(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn status_line(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(TRY_LIMIT))?;
    stream.write_all(b"GET /v1.0/healthz/outbound HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(4096).read_to_end(&mut head)?;
    Ok(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())
}
