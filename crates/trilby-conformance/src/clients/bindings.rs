//! Bindings through each door.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{json, value::RawValue};
use trilby_core::Ctx;
use trilby_proto::runtime::v1::InvokeBindingRequest;

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::client::{Answer, BindingClient, Failure, FailureKind};

fn broken(text: impl ToString) -> Failure {
    Failure { kind: FailureKind::Other, text: text.to_string() }
}

fn pairs(metadata: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
}

#[async_trait]
impl BindingClient for Embedded {
    async fn invoke_binding(
        &self,
        binding: &str,
        operation: &str,
        json: &str,
        metadata: &[(&str, &str)],
    ) -> Answer<Vec<u8>> {
        let data = Bytes::copy_from_slice(json.as_bytes());
        let ctx = Ctx::default();
        let invoked = self.0.bindings.invoke(&ctx, binding, operation, data, pairs(metadata).collect());
        let answer = invoked.await.map_err(|failure| embedded::failure(failure.error))?;
        Ok(answer.data.unwrap_or_default().into())
    }
}

#[async_trait]
impl BindingClient for Http {
    async fn invoke_binding(
        &self,
        binding: &str,
        operation: &str,
        json: &str,
        metadata: &[(&str, &str)],
    ) -> Answer<Vec<u8>> {
        let data: &RawValue = serde_json::from_str(json).map_err(broken)?;
        let metadata: serde_json::Map<_, _> = pairs(metadata).map(|(name, value)| (name, value.into())).collect();
        let body = format!(r#"{{"operation":{},"data":{data},"metadata":{}}}"#, json!(operation), json!(metadata));
        let (parts, body) = self.call(Method::POST, &format!("/v1.0/bindings/{binding}"), None, body).await?;
        match (parts.status, body.is_empty()) {
            (StatusCode::NO_CONTENT, false) => Err(broken("204 with a body")),
            _ => Ok(body.into()),
        }
    }
}

#[async_trait]
impl BindingClient for Grpc {
    async fn invoke_binding(
        &self,
        binding: &str,
        operation: &str,
        json: &str,
        metadata: &[(&str, &str)],
    ) -> Answer<Vec<u8>> {
        let request = InvokeBindingRequest {
            name: binding.into(),
            operation: operation.into(),
            data: Bytes::copy_from_slice(json.as_bytes()),
            metadata: pairs(metadata).collect(),
        };
        let answer = self.0.clone().invoke_binding(request).await.map_err(grpc::failure)?.into_inner();
        Ok(answer.data.into())
    }
}

#[async_trait]
impl BindingClient for Wasm {
    async fn invoke_binding(
        &self,
        binding: &str,
        operation: &str,
        json: &str,
        metadata: &[(&str, &str)],
    ) -> Answer<Vec<u8>> {
        let data = STANDARD.encode(json);
        let metadata: Vec<_> = pairs(metadata).collect();
        let call = json!({ "op": "invoke-binding", "name": binding, "operation": operation, "data": data, "metadata": metadata });
        let answer = self.call(call).await?;
        STANDARD.decode(answer["data"].as_str().unwrap_or_default()).map_err(broken)
    }
}
