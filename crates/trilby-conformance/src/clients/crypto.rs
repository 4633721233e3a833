//! Cryptography through each door.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tonic::Streaming;
use trilby_core::{
    Body, Ctx,
    crypto::{DecryptOptions, EncryptOptions},
};
use trilby_proto::{
    common::v1::StreamPayload,
    runtime::v1::{
        DecryptRequest, DecryptRequestOptions, DecryptResponse, EncryptRequest, EncryptRequestOptions, EncryptResponse,
    },
};

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::client::{Answer, CryptoClient, Failure, FailureKind};

/// How keys are wrapped in the suite.
const WRAP: &str = "A256KW";
/// Bytes of a message of a stream.
const PIECE_BYTES: usize = 10_000;

fn broken(text: impl ToString) -> Failure {
    Failure { kind: FailureKind::Other, text: text.to_string() }
}

#[async_trait]
impl CryptoClient for Embedded {
    async fn encrypt(&self, provider: &str, key: &str, plaintext: &[u8]) -> Answer<Vec<u8>> {
        let options =
            EncryptOptions { key_name: key.into(), key_wrap_algorithm: WRAP.into(), ..EncryptOptions::default() };
        let plaintext = Body::from(plaintext.to_vec());
        let document = self.0.crypto.encrypt(&Ctx::default(), provider, options, plaintext).await;
        document.map_err(embedded::failure)?.collect(usize::MAX).await.map(Into::into).map_err(broken)
    }

    async fn decrypt(&self, provider: &str, document: &[u8]) -> Answer<Vec<u8>> {
        let document = Body::from(document.to_vec());
        let options = DecryptOptions::default();
        let plaintext = self.0.crypto.decrypt(&Ctx::default(), provider, options, document).await;
        plaintext.map_err(embedded::failure)?.collect(usize::MAX).await.map(Into::into).map_err(broken)
    }
}

#[async_trait]
impl CryptoClient for Http {
    async fn encrypt(&self, provider: &str, key: &str, plaintext: &[u8]) -> Answer<Vec<u8>> {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(self.uri(&format!("/v1.0-alpha1/crypto/{provider}/encrypt")))
            .header("dapr-key-name", key)
            .header("dapr-key-wrap-algorithm", WRAP);
        Ok(self.send(request, plaintext.to_vec().into()).await?.1.into())
    }

    async fn decrypt(&self, provider: &str, document: &[u8]) -> Answer<Vec<u8>> {
        let uri = self.uri(&format!("/v1.0-alpha1/crypto/{provider}/decrypt"));
        let request = Request::builder().method(Method::PUT).uri(uri);
        Ok(self.send(request, document.to_vec().into()).await?.1.into())
    }
}

#[async_trait]
impl CryptoClient for Grpc {
    async fn encrypt(&self, provider: &str, key: &str, plaintext: &[u8]) -> Answer<Vec<u8>> {
        let options = EncryptRequestOptions {
            component_name: provider.into(),
            key_name: key.into(),
            key_wrap_algorithm: WRAP.into(),
            ..EncryptRequestOptions::default()
        };
        let first = EncryptRequest { options: Some(options), payload: None };
        let rest = payloads(plaintext).map(|payload| EncryptRequest { options: None, payload: Some(payload) });
        let messages = stream::iter(std::iter::once(first).chain(rest).collect::<Vec<_>>());
        let answers = self.0.clone().encrypt_alpha1(messages).await.map_err(grpc::failure)?.into_inner();
        collect(answers, |answer: EncryptResponse| answer.payload).await
    }

    async fn decrypt(&self, provider: &str, document: &[u8]) -> Answer<Vec<u8>> {
        let options = DecryptRequestOptions { component_name: provider.into(), ..DecryptRequestOptions::default() };
        let first = DecryptRequest { options: Some(options), payload: None };
        let rest = payloads(document).map(|payload| DecryptRequest { options: None, payload: Some(payload) });
        let messages = stream::iter(std::iter::once(first).chain(rest).collect::<Vec<_>>());
        let answers = self.0.clone().decrypt_alpha1(messages).await.map_err(grpc::failure)?.into_inner();
        collect(answers, |answer: DecryptResponse| answer.payload).await
    }
}

fn payloads(data: &[u8]) -> impl Iterator<Item = StreamPayload> + '_ {
    let pieces = data.chunks(PIECE_BYTES).map(Bytes::copy_from_slice);
    (0..).zip(pieces).map(|(seq, data)| StreamPayload { data, seq })
}

async fn collect<R>(mut answers: Streaming<R>, payload: fn(R) -> Option<StreamPayload>) -> Answer<Vec<u8>> {
    let mut data = Vec::new();
    let mut next = 0;
    while let Some(answer) = answers.message().await.map_err(grpc::failure)? {
        let payload = payload(answer).ok_or_else(|| broken("an answer without a payload"))?;
        if payload.seq != next {
            return Err(broken(format!("piece {} came where piece {next} was due", payload.seq)));
        }
        next += 1;
        data.extend_from_slice(&payload.data);
    }
    Ok(data)
}

#[async_trait]
impl CryptoClient for Wasm {
    async fn encrypt(&self, provider: &str, key: &str, plaintext: &[u8]) -> Answer<Vec<u8>> {
        let options = json!({ "key-name": key, "key-wrap-algorithm": WRAP, "omit-decryption-key-name": false });
        let plaintext = STANDARD.encode(plaintext);
        let operation = json!({ "op": "encrypt", "provider": provider, "plaintext": plaintext, "options": options });
        decode(&self.call(operation).await?)
    }

    async fn decrypt(&self, provider: &str, document: &[u8]) -> Answer<Vec<u8>> {
        let document = STANDARD.encode(document);
        decode(&self.call(json!({ "op": "decrypt", "provider": provider, "document": document })).await?)
    }
}

fn decode(answer: &Value) -> Answer<Vec<u8>> {
    STANDARD.decode(answer.as_str().unwrap_or_default()).map_err(broken)
}
