//! The cryptography providers as an app meets them: keys in every form, and what OpenSSL made of them.
//!
//! `keys/openssl.json` holds signatures and ciphertexts that `openssl pkeyutl` made with the keys beside it.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use trilby_component::{
    ErrorKind, OpenRequest,
    crypto::{CipherRequest, CryptoProvider, KeyFormat},
};

/// What was signed and encrypted.
const MESSAGE: &[u8] = b"the quick brown fox";

fn keys_folder() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").to_string_lossy().into_owned()
}

async fn open(type_name: &str, metadata: &[(&str, &str)]) -> Result<Arc<dyn CryptoProvider>, String> {
    let request = OpenRequest { name: "keys".into(), properties: metadata.iter().copied().collect() };
    trilby_components::builtins().open_crypto(type_name, "v1", request).await.map_err(|error| error.to_string())
}

async fn folder() -> Arc<dyn CryptoProvider> {
    open("crypto.dapr.localstorage", &[("path", &keys_folder())]).await.expect("opens")
}

async fn jwks(set: &str) -> Arc<dyn CryptoProvider> {
    open("crypto.dapr.jwks", &[("jwks", set)]).await.expect("opens")
}

fn request(algorithm: &str, key: &str, input: &[u8]) -> CipherRequest {
    CipherRequest {
        algorithm: algorithm.into(),
        key: key.into(),
        input: input.to_vec().into(),
        ..CipherRequest::default()
    }
}

#[derive(Deserialize)]
struct Vector {
    operation: String,
    key: String,
    algorithm: String,
    input: String,
    output: String,
}

fn vectors(operation: &str) -> Vec<Vector> {
    let text = std::fs::read_to_string(Path::new(&keys_folder()).join("openssl.json")).expect("the file");
    let all: Vec<Vector> = serde_json::from_str(&text).expect("JSON");
    all.into_iter().filter(|vector| vector.operation == operation).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

#[tokio::test]
async fn what_openssl_signed_is_verified_and_nothing_else() {
    let keys = folder().await;
    for Vector { key, algorithm, input, output, .. } in vectors("verify") {
        let (mut digest, mut signature) = (unhex(&input), unhex(&output));
        for name in [format!("{key}.pem"), format!("{key}-public.pem")] {
            assert!(keys.verify(&digest, &signature, &algorithm, &name).await.expect("a key"), "{algorithm} {name}");
        }
        digest[0] ^= 1;
        let name = format!("{key}.pem");
        assert!(!keys.verify(&digest, &signature, &algorithm, &name).await.expect("a key"), "{algorithm}");
        digest[0] ^= 1;
        signature.truncate(signature.len() - 1);
        assert!(!keys.verify(&digest, &signature, &algorithm, &name).await.expect("a key"), "{algorithm}");
    }
}

#[tokio::test]
async fn what_is_signed_with_a_key_in_any_form_is_verified_with_its_public_half() {
    let keys = folder().await;
    for Vector { key, algorithm, input, .. } in vectors("verify") {
        let digest = unhex(&input);
        let forms: &[&str] = match key.as_str() {
            "rsa" => &["rsa.pem", "rsa-pkcs1.pem"],
            "p256" => &["p256.pem", "p256-sec1.pem"],
            _ => &[&format!("{key}.pem")],
        };
        for form in forms {
            let signature = keys.sign(&digest, &algorithm, form).await.expect("signs");
            let public = format!("{key}-public.pem");
            assert!(keys.verify(&digest, &signature, &algorithm, &public).await.expect("a key"), "{algorithm} {form}");
        }
    }
    let signature = keys.sign(&[7; 32], "RS256", "rsa.pem").await.expect("signs");
    assert!(keys.verify(&[7; 32], &signature, "RS256", "rsa-public-pkcs1.pem").await.expect("a key"));
}

#[tokio::test]
async fn what_openssl_encrypted_is_decrypted() {
    let keys = folder().await;
    for Vector { key, algorithm, input: label, output, .. } in vectors("decrypt") {
        let mut sealed = request(&algorithm, &format!("{key}.pem"), &unhex(&output));
        sealed.associated_data = unhex(&label).into();
        assert_eq!(keys.decrypt(&sealed).await.expect("decrypts").output, MESSAGE, "{algorithm}");
        let again = CipherRequest { input: MESSAGE.into(), key: format!("{key}-public.pem"), ..sealed.clone() };
        let output = keys.encrypt(&again).await.expect("encrypts").output;
        assert_ne!(output, sealed.input, "a ciphertext is never the same");
        let opened = keys.decrypt(&CipherRequest { input: output, ..sealed }).await.expect("decrypts");
        assert_eq!(opened.output, MESSAGE, "{algorithm}");
    }
}

#[tokio::test]
async fn a_public_key_is_the_same_in_both_formats() {
    let keys = folder().await;
    for Vector { key, algorithm, input, output, .. } in vectors("verify") {
        let (digest, signature) = (unhex(&input), unhex(&output));
        let pem = keys.public_key(&format!("{key}.pem"), KeyFormat::Pem).await.expect("is there").expect("public");
        let expect = std::fs::read_to_string(Path::new(&keys_folder()).join(format!("{key}-public.pem")));
        assert_eq!(pem.text, expect.expect("the file"));
        let json = keys.public_key(&format!("{key}.pem"), KeyFormat::Json).await.expect("is there").expect("public");
        let with_id = json.text.replacen('{', r#"{"kid":"k","#, 1);
        let set = jwks(&with_id).await;
        assert!(set.verify(&digest, &signature, &algorithm, "k").await.expect("a key"), "{algorithm} {with_id}");
        let error = set.sign(&digest, &algorithm, "k").await.expect_err("only a public key");
        assert_eq!(error.to_string(), "failed to sign message: key type mismatch");
    }
}

/// A set with a key of each length, `k16` to `k64`, whose bytes count up.
async fn symmetric() -> Arc<dyn CryptoProvider> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = |length: u8| {
        let bytes: Vec<u8> = (0..length).collect();
        format!(r#"{{"kty":"oct","kid":"k{length}","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(bytes))
    };
    jwks(&format!(r#"{{"keys":[{}]}}"#, [16, 24, 32, 48, 64].map(key).join(","))).await
}

#[tokio::test]
async fn keys_are_wrapped_as_rfc_3394_says() {
    let keys = symmetric().await;
    let secret: Vec<u8> = (0..16).map(|at| at * 0x11).chain(0..16).collect();
    for (algorithm, key, length, expect) in [
        ("A128KW", "k16", 16, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
        ("A192KW", "k24", 16, "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"),
        ("A256KW", "k32", 16, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
        ("A256KW", "k32", 32, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
    ] {
        let wrapped = keys.wrap_key(&request(algorithm, key, &secret[..length])).await.expect("wraps");
        assert_eq!(wrapped.output, unhex(expect), "{algorithm}");
        let unwrapped = keys.unwrap_key(&request(algorithm, key, &wrapped.output)).await.expect("unwraps");
        assert_eq!(unwrapped.output, &secret[..length]);
    }
    for length in [0, 7, 8, 15] {
        assert!(keys.unwrap_key(&request("A128KW", "k16", &[0; 16][..length])).await.is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn cbc_with_hmac_is_as_rfc_7518_says() {
    let keys = symmetric().await;
    let sealed = CipherRequest {
        nonce: unhex("1af38c2dc2b96ffdd86694092341bc04").into(),
        associated_data: b"The second principle of Auguste Kerckhoffs"[..].into(),
        ..request(
            "A128CBC-HS256",
            "k32",
            b"A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy \
              without inconvenience",
        )
    };
    let done = keys.encrypt(&sealed).await.expect("encrypts");
    assert!(done.output.starts_with(&unhex("c80edfa32ddf39d5ef00c0b468834279")));
    assert_eq!(done.tag, unhex("652c3fa36b0a7c5b3219fab3a30bc1c4"));
}

#[tokio::test]
async fn every_cipher_gives_back_what_it_was_given_unless_something_changed() {
    let keys = symmetric().await;
    for (algorithm, key, nonce, tag) in [
        ("A128CBC", "k16", 16, 0),
        ("A192CBC", "k24", 16, 0),
        ("A256CBC", "k32", 16, 0),
        ("A128CBC-NOPAD", "k16", 16, 0),
        ("A192CBC-NOPAD", "k24", 16, 0),
        ("A256CBC-NOPAD", "k32", 16, 0),
        ("A128CBC-HS256", "k32", 16, 16),
        ("A192CBC-HS384", "k48", 16, 24),
        ("A256CBC-HS512", "k64", 16, 32),
        ("A128GCM", "k16", 12, 16),
        ("A192GCM", "k24", 12, 16),
        ("A256GCM", "k32", 12, 16),
        ("C20P", "k32", 12, 16),
        ("C20PKW", "k32", 12, 16),
        ("XC20P", "k32", 24, 16),
        ("XC20PKW", "k32", 24, 16),
    ] {
        let plain = CipherRequest {
            nonce: vec![3; nonce].into(),
            associated_data: "and".into(),
            ..request(algorithm, key, &[7; 32])
        };
        let done = keys.encrypt(&plain).await.expect(algorithm);
        assert_eq!(done.tag.len(), tag, "{algorithm}");
        let sealed = CipherRequest { input: done.output, tag: done.tag, ..plain.clone() };
        assert_eq!(keys.decrypt(&sealed).await.expect(algorithm).output, vec![7; 32]);
        let wrong_nonce = CipherRequest { nonce: vec![3; nonce - 1].into(), ..plain.clone() };
        let error = keys.encrypt(&wrong_nonce).await.expect_err("a nonce too short");
        assert_eq!(error.to_string(), "failed to encrypt data: invalid nonce", "{algorithm}");
        let other_key = CipherRequest { key: "k16".into(), ..plain.clone() };
        let other_key = if key == "k16" { CipherRequest { key: "k32".into(), ..plain.clone() } } else { other_key };
        let error = keys.encrypt(&other_key).await.expect_err("a key of another length");
        assert_eq!(error.to_string(), "failed to encrypt data: key type mismatch", "{algorithm}");
        if tag > 0 {
            let changed = CipherRequest { associated_data: "or".into(), ..sealed.clone() };
            let error = keys.decrypt(&changed).await.expect_err("changed");
            assert_eq!(error.to_string(), "failed to decrypt data: message authentication failed", "{algorithm}");
            let cut = CipherRequest { tag: sealed.tag.slice(1..), ..sealed.clone() };
            assert!(keys.decrypt(&cut).await.expect_err("cut").to_string().ends_with("invalid tag"), "{algorithm}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_of_other_keys_or_of_none_is_refused() {
    let (symmetric, asymmetric) = (symmetric().await, folder().await);
    for (keys, key, algorithm, expect) in [
        (&symmetric, "k32", "RSA-OAEP", "failed to encrypt data: key type mismatch"),
        (&symmetric, "k32", "ECDH-ES", "failed to encrypt data: unsupported algorithm"),
        (&symmetric, "k32", "", "failed to encrypt data: unsupported algorithm"),
        (&asymmetric, "rsa.pem", "A256GCM", "failed to encrypt data: key type mismatch"),
        (&asymmetric, "rsa.pem", "ECDH-ES", "failed to encrypt data: unsupported algorithm"),
        (&asymmetric, "p256.pem", "RSA-OAEP", "failed to encrypt data: key type mismatch"),
        (&symmetric, "nope", "A256GCM", "failed to retrieve the key: key not found"),
    ] {
        let error = keys.encrypt(&request(algorithm, key, b"x")).await.expect_err(expect);
        assert_eq!(error.to_string(), expect, "{key} {algorithm}");
    }
    let error = symmetric.sign(b"x", "HS256", "k32").await.expect_err("not symmetric");
    assert_eq!(error.to_string(), "failed to sign message: key type mismatch");
    let error = asymmetric.sign(b"x", "ES384", "p256.pem").await.expect_err("another curve");
    assert_eq!(error.to_string(), "failed to sign message: key type mismatch");
}

const SET: &str = r#"{"keys":[{"kid":"one","kty":"oct","k":"AAECAwQFBgcICQoLDA0ODw"}]}"#;
const OTHER_SET: &str = r#"{"keys":[{"kid":"two","kty":"oct","k":"AAECAwQFBgcICQoLDA0ODw"},{"kid":"x","kty":"odd"}]}"#;

async fn has(keys: &Arc<dyn CryptoProvider>, key: &str) -> bool {
    keys.wrap_key(&request("A128KW", key, &[0; 16])).await.is_ok()
}

#[tokio::test]
async fn a_set_is_given_as_json_base64_or_a_file() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    for set in [SET.to_owned(), STANDARD.encode(SET), STANDARD.encode(SET).trim_end_matches('=').to_owned()] {
        assert!(has(&jwks(&set).await, "one").await, "{set}");
    }
    for (set, expect) in [
        ("", "metadata property 'jwks' is required"),
        ("nonsense", "failed to parse property 'jwks': not a URL, path to local file, or JSON value"),
        (r#"{"keys":5}"#, "keys is not a list"),
        ("http://", "is no URL"),
    ] {
        let error = open("crypto.dapr.jwks", &[("jwks", set)]).await.err().expect(expect);
        assert!(error.contains(expect), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.json");
    std::fs::write(&path, SET).expect("written");
    let keys = jwks(path.to_str().expect("UTF-8")).await;
    assert!(has(&keys, "one").await && !has(&keys, "two").await);
    for (text, known, unknown) in [("{", "one", "two"), (OTHER_SET, "two", "one")] {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        std::fs::write(&path, text).expect("written");
        assert!(has(&keys, known).await && !has(&keys, unknown).await, "{text}");
    }
}

/// Answers each request with the next of these, the last one for ever.
async fn server(answers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for at in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let (status, body) = answers[at.min(answers.len() - 1)];
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}/keys")
}

#[tokio::test]
async fn a_set_on_a_server_is_fetched_again_when_it_is_old() {
    let url = server(&[("200 OK", SET), ("500 Oops", ""), ("200 OK", OTHER_SET)]).await;
    let keys = open("crypto.dapr.jwks", &[("jwks", &url), ("minRefreshInterval", "1s")]).await.expect("opens");
    assert!(has(&keys, "one").await && !has(&keys, "two").await);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(has(&keys, "one").await, "what cannot be fetched leaves the old set");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(has(&keys, "two").await && !has(&keys, "one").await);
}

#[tokio::test]
async fn a_server_that_has_no_set_is_named() {
    let url = server(&[("404 Not Found", "")]).await;
    let error = open("crypto.dapr.jwks", &[("jwks", &url)]).await.err().expect("no set");
    assert_eq!(error, format!("failed to fetch JWKS from {url}: the server answered 404 Not Found"));
    let url = server(&[("200 OK", "<html>")]).await;
    let error = open("crypto.dapr.jwks", &[("jwks", &url)]).await.err().expect("no set");
    assert!(error.starts_with(&format!("failed to fetch JWKS from {url}: expected value")), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let request =
        OpenRequest { name: "keys".into(), properties: [("jwks", format!("http://{closed}/"))].into_iter().collect() };
    let opened = trilby_components::builtins().open_crypto("crypto.dapr.jwks", "v1", request).await;
    let error = opened.err().expect("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with(&closed.to_string()), "{error}");
}
