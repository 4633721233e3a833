//! What a document promises: it comes back whole, or fails; and what fails was genuine as far as it came.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use trilby_component::{ErrorKind, Result as ComponentResult};

use super::*;
use crate::{Identity, body::BoxError, metrics::Metrics, resiliency::Policies};

/// Wraps by reversing, with the one key `key`.
#[derive(Default)]
struct Reversing {
    calls: AtomicUsize,
}

impl Reversing {
    fn reverse(&self, request: &CipherRequest) -> ComponentResult<CipherResult> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if request.key != "key" {
            return Err(ComponentError::new(ErrorKind::NotFound, "key not found"));
        }
        let output: Vec<u8> = request.input.iter().rev().copied().collect();
        Ok(CipherResult { output: output.into(), tag: Bytes::new() })
    }
}

#[async_trait]
impl CryptoProvider for Reversing {
    async fn public_key(&self, _name: &str, _format: KeyFormat) -> ComponentResult<Option<PublicKey>> {
        Ok(None)
    }

    async fn encrypt(&self, request: &CipherRequest) -> ComponentResult<CipherResult> {
        self.reverse(request)
    }

    async fn decrypt(&self, request: &CipherRequest) -> ComponentResult<CipherResult> {
        self.reverse(request)
    }

    async fn wrap_key(&self, request: &CipherRequest) -> ComponentResult<CipherResult> {
        self.reverse(request)
    }

    async fn unwrap_key(&self, request: &CipherRequest) -> ComponentResult<CipherResult> {
        self.reverse(request)
    }

    async fn sign(&self, digest: &[u8], _algorithm: &str, _key: &str) -> ComponentResult<Bytes> {
        Ok(Bytes::copy_from_slice(digest))
    }

    async fn verify(&self, digest: &[u8], signature: &[u8], _algorithm: &str, _key: &str) -> ComponentResult<bool> {
        Ok(digest == signature)
    }
}

fn api() -> CryptoApi {
    let (app, metrics, policies) = (Identity::new("myapp"), Metrics::default(), Policies::default());
    let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
    CryptoApi::new(&wiring, [CryptoComponent { name: "keys".into(), provider: Arc::new(Reversing::default()) }])
}

fn options() -> EncryptOptions {
    EncryptOptions { key_name: "key".into(), key_wrap_algorithm: "A256KW".into(), ..EncryptOptions::default() }
}

fn plaintext(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A body that comes in pieces of `size` bytes.
fn pieces(bytes: &[u8], size: usize) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(size).map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    Body::stream(StreamBody::new(futures_util::stream::iter(pieces)))
}

async fn encrypt(options: EncryptOptions, plaintext: Body) -> Vec<u8> {
    let document = api().encrypt(&Ctx::default(), "keys", options, plaintext).await.expect("encrypts");
    document.collect(usize::MAX).await.expect("whole").to_vec()
}

/// What came of a document, and how it ended.
async fn decrypt(document: Body) -> (Vec<u8>, Result<(), String>) {
    let mut read = Vec::new();
    let mut plaintext = match api().decrypt(&Ctx::default(), "keys", DecryptOptions::default(), document).await {
        Ok(plaintext) => plaintext,
        Err(error) => return (read, Err(error.to_string())),
    };
    while let Some(frame) = plaintext.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(&frame.into_data().expect("data")),
            Err(error) => return (read, Err(error.to_string())),
        }
    }
    (read, Ok(()))
}

#[tokio::test]
async fn a_document_comes_back_whole_at_every_length_and_however_it_is_cut_into_pieces() {
    for cipher in ["", "AES-GCM", "chacha20-poly1305"] {
        for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let plain = plaintext(length);
            let options = EncryptOptions { cipher: cipher.into(), ..options() };
            for size in [1_000, 65_536, 65_552, 1 << 20] {
                let document = encrypt(options.clone(), pieces(&plain, size)).await;
                assert_eq!(decrypt(pieces(&document, size)).await, (plain.clone(), Ok(())), "{length} by {size}");
            }
        }
    }
}

#[tokio::test]
async fn a_change_at_any_byte_is_noticed() {
    let document = encrypt(options(), Body::from("hello world")).await;
    for at in 0..document.len() {
        let mut changed = document.clone();
        changed[at] ^= 1;
        let (read, ended) = decrypt(Body::from(changed)).await;
        assert!(ended.is_err() && read.is_empty(), "byte {at}");
    }
}

#[tokio::test]
async fn a_cut_at_any_byte_is_noticed_but_for_the_one_behind_the_header() {
    let document = encrypt(options(), Body::from("hello world")).await;
    let header = document.len() - "hello world".len() - file_key::TAG_BYTES;
    for length in (0..document.len()).filter(|length| *length != header) {
        let (read, ended) = decrypt(Body::from(document[..length].to_vec())).await;
        assert!(ended.is_err() && read.is_empty(), "{length} bytes");
    }
    assert_eq!(decrypt(Body::from(document[..header].to_vec())).await, (Vec::new(), Ok(())));
}

#[tokio::test]
async fn what_is_handed_on_before_a_failure_is_genuine() {
    const SEALED: usize = segments::SEGMENT_BYTES + file_key::TAG_BYTES;
    let plain = plaintext(3 * segments::SEGMENT_BYTES);
    let document = encrypt(options(), Body::from(plain.clone())).await;
    let header = document.len() - 3 * SEALED;
    let segment = |number: usize| &document[header + number * SEALED..][..SEALED];
    let head = &document[..header];
    for (changed, genuine) in [
        ([head, segment(0), segment(1)].concat(), 1),
        ([head, segment(0), segment(2)].concat(), 1),
        ([head, segment(1), segment(0), segment(2)].concat(), 0),
        ([head, segment(0), segment(1), segment(2), b"x"].concat(), 2),
        ([head, segment(0), segment(1), &segment(2)[1..]].concat(), 2),
    ] {
        let (read, ended) = decrypt(pieces(&changed, 10_000)).await;
        assert!(plain.starts_with(&read), "only what was sealed");
        assert_eq!(read.len(), genuine * segments::SEGMENT_BYTES);
        assert_eq!(ended, Err(format!("error processing segment {genuine}: failed to decrypt segment")));
    }
}

#[tokio::test]
async fn a_segment_is_ready_before_the_next_has_come() {
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let stream =
        futures_util::stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
    let body = Body::stream(StreamBody::new(Box::pin(stream)));
    let mut document = api().encrypt(&Ctx::default(), "keys", options(), body).await.expect("begins");
    document.frame().await.expect("a header").expect("a header");
    let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; segments::SEGMENT_BYTES + 1])));
    send.send(piece()).await.expect("open");
    let frame = document.frame().await.expect("a segment").expect("a segment");
    assert_eq!(frame.into_data().expect("data").len(), segments::SEGMENT_BYTES + file_key::TAG_BYTES);
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(std::pin::Pin::new(&mut document).poll_frame(&mut context), Poll::Pending));
    send.send(Err("the line is dead".into())).await.expect("open");
    let error = document.frame().await.expect("an end").expect_err("a failure");
    assert_eq!(error.to_string(), "the line is dead");
    assert!(document.frame().await.is_none(), "nothing comes after a failure");
}

#[tokio::test]
async fn the_document_names_the_key_that_was_asked_for() {
    let manifest = |document: Vec<u8>| {
        let text = String::from_utf8_lossy(&document).into_owned();
        text.lines().nth(1).expect("a manifest").to_owned()
    };
    let named = manifest(encrypt(options(), Body::Empty).await);
    assert!(named.starts_with(r#"{"k":"key","kw":1,"wfk":""#) && named.contains(r#","cph":1,"np":""#), "{named}");
    let other = EncryptOptions { decryption_key_name: "other".into(), ..options() };
    assert!(manifest(encrypt(other.clone(), Body::Empty).await).starts_with(r#"{"k":"other","kw""#));
    let none = EncryptOptions { omit_decryption_key_name: true, ..other };
    let document = encrypt(none, Body::from("x")).await;
    assert!(manifest(document.clone()).starts_with(r#"{"kw":1"#));
    assert_eq!(
        decrypt(Body::from(document.clone())).await.1.expect_err("no key"),
        "failed to perform operation: document's manifest does not contain a key name, and no key name was provided"
    );
    let given = DecryptOptions { key_name: "key".into() };
    let opened = api().decrypt(&Ctx::default(), "keys", given, Body::from(document)).await.expect("opens");
    assert_eq!(opened.collect(9).await.expect("whole"), "x");
}

#[tokio::test]
async fn what_cannot_be_encrypted_is_said_in_daprs_words() {
    for (change, expect) in [
        (EncryptOptions { key_name: String::new(), ..options() }, "option KeyName is required"),
        (EncryptOptions { key_wrap_algorithm: String::new(), ..options() }, "option Algorithm is required"),
        (
            EncryptOptions { key_wrap_algorithm: "odd".into(), ..options() },
            "option Algorithm is not valid: algorithm ODD is not supported",
        ),
        (
            EncryptOptions { cipher: "odd".into(), ..options() },
            "option Cipher is not valid: cipher ODD is not supported",
        ),
        (EncryptOptions { key_name: "nope".into(), ..options() }, "failed to wrap the file key: key not found"),
        (
            EncryptOptions { decryption_key_name: "n".repeat(70_000), ..options() },
            "failed to sign header: header is too long",
        ),
    ] {
        let error = api().encrypt(&Ctx::default(), "keys", change, Body::Empty).await.expect_err(expect);
        assert_eq!((error.code(), error.message()), (Code::Crypto, &*format!("failed to perform operation: {expect}")));
    }
}

#[tokio::test]
async fn what_is_no_document_is_said_in_daprs_words() {
    let long = format!("dapr.io/enc/v1\n{}\nAAAA\n", "x".repeat(70_000));
    for (document, expect) in [
        ("", "invalid header: scheme name not found"),
        ("garbage", "invalid header: scheme name not found"),
        ("\n", "invalid header: invalid format"),
        ("dapr.io/enc/v2\n{}\nAAAA\n", "invalid header: unsupported scheme"),
        ("dapr.io/enc/v1\n", "invalid header: manifest not found"),
        ("dapr.io/enc/v1\n\n\n", "invalid header: invalid format"),
        ("dapr.io/enc/v1\n{}\nAAAA", "invalid header: message authentication code not found"),
        ("dapr.io/enc/v1\n{}\nAAAA\n", "invalid header: invalid manifest"),
        (&long, "invalid header: manifest not found"),
    ] {
        for size in [1, 7, 1 << 20] {
            let ended = decrypt(pieces(document.as_bytes(), size)).await.1;
            assert_eq!(ended, Err(format!("failed to perform operation: {expect}")), "{document:.40}");
        }
    }
}

#[tokio::test]
async fn a_missing_key_looks_like_a_wrong_signature() {
    let options = EncryptOptions { decryption_key_name: "nope".into(), ..options() };
    let document = encrypt(options, Body::from("x")).await;
    assert_eq!(
        decrypt(Body::from(document)).await.1.expect_err("no such key"),
        "failed to perform operation: failed to validate the document's signature"
    );
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named() {
    let code = |api: &CryptoApi, name| api.require(name).expect_err("none").code();
    assert_eq!(code(&CryptoApi::default(), "keys"), Code::CryptoProvidersNotConfigured);
    assert_eq!(code(&api(), "other"), Code::CryptoProviderNotFound);
    assert_eq!(code(&api(), ""), Code::BadRequest);
    assert!(api().require("keys").is_ok());
}

#[tokio::test]
async fn single_operations_do_not_say_why_they_failed() {
    let request = |key: &str| CipherRequest { input: "ab".into(), key: key.into(), ..CipherRequest::default() };
    let done = api().cipher(&Ctx::default(), "keys", Cipher::WrapKey, request("key")).await.expect("wraps");
    assert_eq!(done.output, "ba");
    let error = api().cipher(&Ctx::default(), "keys", Cipher::Decrypt, request("nope")).await.expect_err("no key");
    assert_eq!(error.message(), "failed to perform operation: failed to decrypt");
}
