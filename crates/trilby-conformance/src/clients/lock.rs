//! Locks through each door.

use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use serde_json::{Value, json};
use trilby_component::lock::UnlockStatus;
use trilby_core::Ctx;
use trilby_proto::runtime::v1::{TryLockRequest, UnlockRequest};

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::client::{Answer, Failure, FailureKind, LockClient};

fn broken(text: impl ToString) -> Failure {
    Failure { kind: FailureKind::Other, text: text.to_string() }
}

fn numbered(status: i64) -> Answer<UnlockStatus> {
    let all = [
        UnlockStatus::Success,
        UnlockStatus::LockDoesNotExist,
        UnlockStatus::LockBelongsToOthers,
        UnlockStatus::InternalError,
    ];
    let found = all.into_iter().find(|known| *known as i64 == status);
    found.ok_or_else(|| broken(format!("there is no status {status}")))
}

#[async_trait]
impl LockClient for Embedded {
    async fn try_lock(&self, store: &str, resource: &str, owner: &str, expiry_seconds: u32) -> Answer<bool> {
        let expiry = Duration::from_secs(expiry_seconds.into());
        self.0.lock.try_lock(&Ctx::default(), store, resource, owner, expiry).await.map_err(embedded::failure)
    }

    async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Answer<UnlockStatus> {
        self.0.lock.unlock(&Ctx::default(), store, resource, owner).await.map_err(embedded::failure)
    }
}

#[async_trait]
impl LockClient for Http {
    async fn try_lock(&self, store: &str, resource: &str, owner: &str, expiry_seconds: u32) -> Answer<bool> {
        let body = json!({ "resourceId": resource, "lockOwner": owner, "expiryInSeconds": expiry_seconds });
        let path = format!("/v1.0-alpha1/lock/{store}");
        let (_, answer) = self.call(Method::POST, &path, None, body.to_string()).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(broken)?;
        answer["success"].as_bool().ok_or_else(|| broken(&answer))
    }

    async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Answer<UnlockStatus> {
        let body = json!({ "resourceId": resource, "lockOwner": owner }).to_string();
        let (_, answer) = self.call(Method::POST, &format!("/v1.0-alpha1/unlock/{store}"), None, body).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(broken)?;
        numbered(answer["status"].as_i64().ok_or_else(|| broken(&answer))?)
    }
}

#[async_trait]
impl LockClient for Grpc {
    async fn try_lock(&self, store: &str, resource: &str, owner: &str, expiry_seconds: u32) -> Answer<bool> {
        let request = TryLockRequest {
            store_name: store.into(),
            resource_id: resource.into(),
            lock_owner: owner.into(),
            expiry_in_seconds: i32::try_from(expiry_seconds).map_err(broken)?,
        };
        let answer = self.0.clone().try_lock_alpha1(request).await.map_err(grpc::failure)?;
        Ok(answer.into_inner().success)
    }

    async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Answer<UnlockStatus> {
        let request =
            UnlockRequest { store_name: store.into(), resource_id: resource.into(), lock_owner: owner.into() };
        let answer = self.0.clone().unlock_alpha1(request).await.map_err(grpc::failure)?;
        numbered(answer.into_inner().status.into())
    }
}

#[async_trait]
impl LockClient for Wasm {
    async fn try_lock(&self, store: &str, resource: &str, owner: &str, expiry_seconds: u32) -> Answer<bool> {
        let call = json!({ "op": "try-lock", "store": store, "resource-id": resource, "owner": owner,
            "expiry-seconds": expiry_seconds });
        let answer = self.call(call).await?;
        answer.as_bool().ok_or_else(|| broken(&answer))
    }

    async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Answer<UnlockStatus> {
        let answer =
            self.call(json!({ "op": "unlock", "store": store, "resource-id": resource, "owner": owner })).await?;
        match answer.as_str() {
            Some("success") => Ok(UnlockStatus::Success),
            Some("does-not-exist") => Ok(UnlockStatus::LockDoesNotExist),
            Some("belongs-to-others") => Ok(UnlockStatus::LockBelongsToOthers),
            Some("internal-error") => Ok(UnlockStatus::InternalError),
            _ => Err(broken(&answer)),
        }
    }
}
