//! From HTTP/1.1 to HTTP/2 on one connection: `Upgrade: h2c` (RFC 7540 §3.2), which daprd accepts.
//!
//! The request that asks for it is answered on stream 1 of the new protocol. hyper's server has no notion of that, so
//! the request is written as the HEADERS frame that a client would have sent for it, and put behind the client's
//! preface. Header fields are literals without indexing, which leaves the client's compression state as it is.

use std::{io, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::timeout,
};
use trilby_core::{Body, Response};

const H2C: HeaderValue = HeaderValue::from_static("h2c");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream of a frame.
const FRAME_HEAD_BYTES: usize = 9;
/// Without other settings no frame may be longer. A longer request stays on HTTP/1.1.
const MAX_FRAME_BYTES: usize = 16_384;
const HEADERS_FRAME: u8 = 1;
const SETTINGS_FRAME: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request that asked for HTTP/2, and the connection on its way there.
pub(super) struct Upgrade {
    upgraded: OnUpgrade,
    request: Vec<u8>,
}

impl Upgrade {
    /// What `request` asks for, if it asks for HTTP/2 and has no body: that would have to come first.
    pub(super) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let headers = request.headers();
        let asked = headers.get(header::UPGRADE).is_some_and(|protocol| protocol == H2C)
            && headers.contains_key(HTTP2_SETTINGS)
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream();
        if !asked {
            return None;
        }
        let frame = headers_frame(request)?;
        Some(Self { upgraded: hyper::upgrade::on(request), request: frame })
    }

    /// The connection as HTTP/2, its first request in place. The client has `limit` for its preface.
    pub(super) async fn into_http2(self, limit: Duration) -> io::Result<impl AsyncRead + AsyncWrite + Send + 'static> {
        let upgraded = self.upgraded.await.map_err(io::Error::other)?;
        let (mut reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let mut start = timeout(limit, read_preface(&mut reader)).await??;
        start.extend(self.request);
        Ok(tokio::io::join(io::Cursor::new(start).chain(reader), writer))
    }
}

/// 101.
pub(super) fn switching_protocols() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, H2C);
    response
}

/// The client's preface and the SETTINGS frame that belongs to it.
async fn read_preface(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut start = vec![0; PREFACE.len() + FRAME_HEAD_BYTES];
    reader.read_exact(&mut start).await?;
    let (preface, frame) = start.split_at(PREFACE.len());
    let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
    if preface != PREFACE || frame[3] != SETTINGS_FRAME || length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/2 preface after the upgrade"));
    }
    let read = start.len();
    start.resize(read + length, 0);
    reader.read_exact(&mut start[read..]).await?;
    Ok(start)
}

/// The request as a HEADERS frame of stream 1. `None` if it does not fit into one.
fn headers_frame<B>(request: &Request<B>) -> Option<Vec<u8>> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut block = Vec::with_capacity(512);
    write_field(&mut block, b":method", request.method().as_str().as_bytes());
    write_field(&mut block, b":scheme", b"http");
    write_field(&mut block, b":path", path.as_bytes());
    if let Some(host) = request.headers().get(header::HOST) {
        write_field(&mut block, b":authority", host.as_bytes());
    }
    for (name, value) in end_to_end(request.headers()) {
        write_field(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    if block.len() > MAX_FRAME_BYTES {
        return None;
    }
    let [_, length @ ..] = u32::try_from(block.len()).ok()?.to_be_bytes();
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + block.len());
    frame.extend(length);
    frame.extend([HEADERS_FRAME, END_STREAM | END_HEADERS, 0, 0, 0, 1]);
    frame.extend(block);
    Some(frame)
}

/// The headers that HTTP/2 has too.
fn end_to_end(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| {
        ![header::CONNECTION, header::UPGRADE, header::HOST, header::TE, header::TRANSFER_ENCODING, HTTP2_SETTINGS]
            .contains(name)
            && !matches!(name.as_str(), "keep-alive" | "proxy-connection")
    })
}

/// A header field in HPACK: literal, without indexing, not compressed.
fn write_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        write_length(block, text.len());
        block.extend(text);
    }
}

/// An HPACK integer with a prefix of seven bits (RFC 7541 §5.1).
fn write_length(block: &mut Vec<u8>, length: usize) {
    const PREFIX: u8 = 127;
    match u8::try_from(length) {
        Ok(short) if short < PREFIX => block.push(short),
        _ => {
            block.push(PREFIX);
            let mut rest = length - usize::from(PREFIX);
            while rest >= 128 {
                block.push((rest & 127) as u8 | 128);
                rest >>= 7;
            }
            block.push(rest as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_hpack_integers() {
        for (length, expect) in [(0, &[0][..]), (126, &[126]), (127, &[127, 0]), (1337, &[127, 186, 9])] {
            let mut block = Vec::new();
            write_length(&mut block, length);
            assert_eq!(block, expect, "{length}");
        }
    }

    #[test]
    fn connection_headers_stay_in_http1() {
        let request = Request::get("/p?q=1")
            .header("host", "h")
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("upgrade", "h2c")
            .header("http2-settings", "")
            .header("x", "y")
            .body(())
            .expect("a request");
        let frame = headers_frame(&request).expect("fits");
        let mut expect = vec![0, 0, 58, HEADERS_FRAME, END_STREAM | END_HEADERS, 0, 0, 0, 1];
        for (name, value) in
            [(":method", "GET"), (":scheme", "http"), (":path", "/p?q=1"), (":authority", "h"), ("x", "y")]
        {
            write_field(&mut expect, name.as_bytes(), value.as_bytes());
        }
        expect[2] = u8::try_from(expect.len() - FRAME_HEAD_BYTES).expect("short");
        assert_eq!(frame, expect);
    }
}
