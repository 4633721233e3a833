//! The packets of MQTT 3.1.1 on the wire: those that a client sends, and those that it gets.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::Deserialize;

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
/// Its lower four bits are fixed, as are those of the two that follow.
pub(super) const PUBREL: u8 = 0x62;
const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xa2;
pub(super) const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xb0;
const PINGRESP: u8 = 0xd0;

/// The longest text and the longest packet that the format has room for.
pub(super) const MAX_TEXT_BYTES: usize = u16::MAX as usize;
pub(super) const MAX_PACKET_BYTES: usize = 268_435_455;

/// How sure a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Qos {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

impl Qos {
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Qos {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("invalid qos {number}, expected 0, 1 or 2"));
        Self::from_bits(number).ok_or_else(unknown)
    }
}

/// A message, going either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// Whether it may have been sent before.
    pub(super) again: bool,
    /// 0 if the quality is [`Qos::AtMostOnce`].
    pub(super) id: u16,
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// Whether the server remembers us, and 0 or the reason for which it refuses us.
    ConnAck {
        resumed: bool,
        code: u8,
    },
    Publish(Publish),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    /// The quality that is granted, or 0x80 for a refusal.
    SubAck {
        id: u16,
        code: u8,
    },
    UnsubAck(u16),
    PingResp,
}

/// The server does not speak MQTT 3.1.1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server sent something that is not MQTT 3.1.1: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Takes the first packet out of `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// It can never be one.
pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Packet>, Malformed> {
    let Some((header, length)) = length_of(buffer)? else { return Ok(None) };
    if buffer.len() < header + length {
        buffer.reserve(header + length - buffer.len());
        return Ok(None);
    }
    let mut packet = buffer.split_to(header + length).freeze();
    let first = packet[0];
    packet.advance(header);
    body(first, packet).map(Some)
}

fn body(first: u8, mut body: Bytes) -> Result<Packet, Malformed> {
    if first & 0xf0 == PUBLISH {
        return publish(first, body).map(Packet::Publish);
    }
    if first == PINGRESP {
        return Ok(Packet::PingResp);
    }
    if body.len() < 2 {
        return Err(Malformed("a packet is too short"));
    }
    if first == CONNACK {
        return Ok(Packet::ConnAck { resumed: body[0] & 1 == 1, code: body[1] });
    }
    let id = body.get_u16();
    match first {
        PUBACK => Ok(Packet::PubAck(id)),
        PUBREC => Ok(Packet::PubRec(id)),
        PUBREL => Ok(Packet::PubRel(id)),
        PUBCOMP => Ok(Packet::PubComp(id)),
        UNSUBACK => Ok(Packet::UnsubAck(id)),
        SUBACK if !body.is_empty() => Ok(Packet::SubAck { id, code: body[0] }),
        _ => Err(Malformed("a packet is of no kind that servers send")),
    }
}

fn publish(first: u8, mut body: Bytes) -> Result<Publish, Malformed> {
    let qos = Qos::from_bits(first >> 1 & 0b11).ok_or(Malformed("a quality of service of 3"))?;
    let needed = if qos == Qos::AtMostOnce { 0 } else { 2 };
    if body.len() < 2 || body.len() < 2 + usize::from(u16::from_be_bytes([body[0], body[1]])) + needed {
        return Err(Malformed("a message is too short"));
    }
    let length = body.get_u16();
    let topic = body.split_to(length.into());
    let topic = std::str::from_utf8(&topic).map_err(|_| Malformed("a topic is not UTF-8"))?.to_owned();
    let id = if qos == Qos::AtMostOnce { 0 } else { body.get_u16() };
    Ok(Publish { topic, payload: body, qos, retain: first & 1 == 1, again: first & 0b1000 != 0, id })
}

/// The lengths of the header and of what follows it.
fn length_of(buffer: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for (index, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    if buffer.len() > 4 { Err(Malformed("a length of more than four bytes")) } else { Ok(None) }
}

/// Who we are.
pub(super) struct Connect<'a> {
    pub(super) client_id: &'a str,
    pub(super) clean_session: bool,
    pub(super) keep_alive_seconds: u16,
    pub(super) username: &'a str,
    pub(super) password: &'a str,
}

/// Writes the packet that opens a session.
pub(super) fn connect(out: &mut BytesMut, connect: &Connect<'_>) {
    let Connect { client_id, clean_session, keep_alive_seconds, username, password } = connect;
    let mut flags = u8::from(*clean_session) << 1;
    let mut length = 10 + 2 + client_id.len();
    if !username.is_empty() {
        flags |= 0x80;
        length += 2 + username.len();
        if !password.is_empty() {
            flags |= 0x40;
            length += 2 + password.len();
        }
    }
    header(out, 0x10, length);
    text(out, "MQTT");
    // The protocol's level, which is that of 3.1.1.
    out.put_u8(4);
    out.put_u8(flags);
    out.put_u16(*keep_alive_seconds);
    text(out, client_id);
    if flags & 0x80 != 0 {
        text(out, username);
    }
    if flags & 0x40 != 0 {
        text(out, password);
    }
}

impl Publish {
    /// Its length without the header.
    pub(super) fn length(&self) -> usize {
        2 + self.topic.len() + self.payload.len() + if self.qos == Qos::AtMostOnce { 0 } else { 2 }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let first = PUBLISH | u8::from(self.again) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        header(out, first, self.length());
        text(out, &self.topic);
        if self.qos != Qos::AtMostOnce {
            out.put_u16(self.id);
        }
        out.put_slice(&self.payload);
    }
}

/// Writes one of the packets that hold nothing but an id.
pub(super) fn answer(out: &mut BytesMut, kind: u8, id: u16) {
    header(out, kind, 2);
    out.put_u16(id);
}

pub(super) fn subscribe(out: &mut BytesMut, id: u16, filter: &str, qos: Qos) {
    header(out, SUBSCRIBE, 2 + 2 + filter.len() + 1);
    out.put_u16(id);
    text(out, filter);
    out.put_u8(qos as u8);
}

pub(super) fn unsubscribe(out: &mut BytesMut, id: u16, filter: &str) {
    header(out, UNSUBSCRIBE, 2 + 2 + filter.len());
    out.put_u16(id);
    text(out, filter);
}

pub(super) fn ping(out: &mut BytesMut) {
    header(out, 0xc0, 0);
}

pub(super) fn disconnect(out: &mut BytesMut) {
    header(out, 0xe0, 0);
}

fn header(out: &mut BytesMut, first: u8, mut length: usize) {
    out.reserve(5 + length);
    out.put_u8(first);
    loop {
        let byte = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        if length == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

/// Texts are checked where they come in: none is longer than [`MAX_TEXT_BYTES`].
fn text(out: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(&text.as_bytes()[..length.into()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    fn message(qos: Qos, payload: &'static [u8]) -> Publish {
        let id = if qos == Qos::AtMostOnce { 0 } else { 7 };
        Publish { topic: "a/b".to_owned(), payload: payload.into(), qos, retain: true, again: false, id }
    }

    #[test]
    fn what_is_written_is_what_the_standard_says() {
        let login =
            Connect { client_id: "id", clean_session: true, keep_alive_seconds: 30, username: "u", password: "p" };
        assert_eq!(&written(|out| connect(out, &login))[..], b"\x10\x14\0\x04MQTT\x04\xc2\0\x1e\0\x02id\0\x01u\0\x01p");
        assert_eq!(&written(|out| message(Qos::AtLeastOnce, b"x").encode(out))[..], b"\x33\x08\0\x03a/b\0\x07x");
        assert_eq!(&written(|out| subscribe(out, 1, "#", Qos::ExactlyOnce))[..], b"\x82\x06\0\x01\0\x01#\x02");
        assert_eq!(&written(|out| unsubscribe(out, 1, "#"))[..], b"\xa2\x05\0\x01\0\x01#");
        assert_eq!(&written(|out| answer(out, PUBREL, 258))[..], b"\x62\x02\x01\x02");
        assert_eq!(&written(ping)[..], b"\xc0\0");
        assert_eq!(&written(disconnect)[..], b"\xe0\0");
    }

    #[test]
    fn a_message_is_read_as_it_was_written_however_it_is_cut() {
        static LONG: [u8; 20_000] = [7; 20_000];
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for payload in [&b""[..], b"x", &LONG] {
                let message = message(qos, payload);
                let bytes = written(|out| message.encode(out));
                let mut buffer = BytesMut::new();
                for (index, byte) in bytes.iter().enumerate() {
                    assert!(index % 997 != 0 || decode(&mut buffer).expect("well-formed").is_none());
                    buffer.put_u8(*byte);
                }
                buffer.put_slice(b"\xd0\0");
                assert_eq!(decode(&mut buffer), Ok(Some(Packet::Publish(message))));
                assert_eq!(decode(&mut buffer), Ok(Some(Packet::PingResp)));
                assert_eq!(decode(&mut buffer), Ok(None));
            }
        }
    }

    #[test]
    fn what_is_not_mqtt_is_refused_and_never_a_panic() {
        for bytes in [
            &b"\x30\x80\x80\x80\x80\x01"[..],
            b"\x36\x02\0\0",
            b"\x32\x02\0\0",
            b"\x30\x01\0",
            b"\x30\x04\0\x09ab",
            b"\x30\x04\0\x02\xff\xff",
            b"\x20\x01\0",
            b"\x90\x02\0\x01",
            b"\x10\x02\0\0",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ] {
            let mut buffer = BytesMut::from(bytes);
            let mut last = decode(&mut BytesMut::new());
            while let Ok(found) = decode(&mut buffer) {
                if found.is_none() {
                    break;
                }
                last = Ok(found);
            }
            assert!(last == Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn answers_are_read() {
        let mut buffer = BytesMut::from(&b"\x20\x02\x01\x00\x40\x02\0\x01\x50\x02\0\x02\x62\x02\0\x03\x70\x02\0\x04\x90\x03\0\x05\x80\xb0\x02\0\x06"[..]);
        let expected = [
            Packet::ConnAck { resumed: true, code: 0 },
            Packet::PubAck(1),
            Packet::PubRec(2),
            Packet::PubRel(3),
            Packet::PubComp(4),
            Packet::SubAck { id: 5, code: 0x80 },
            Packet::UnsubAck(6),
        ];
        for packet in expected {
            assert_eq!(decode(&mut buffer), Ok(Some(packet)));
        }
    }
}
