//! The blocks through the door.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tonic::{Code, Request, Status};
use trilby_door_grpc::{Options, Shutdown};
use trilby_proto::{
    common::v1::{Etag, StateItem, StateOptions, state_options::StateConcurrency},
    runtime::v1::{
        DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkSecretRequest,
        GetBulkStateRequest, GetMetadataRequest, GetSecretRequest, GetStateRequest, QueryStateRequest,
        SaveStateRequest, ScheduleJobRequest, SetMetadataRequest, ShutdownRequest, TransactionalStateOperation,
    },
};

use crate::support::{Setup, client, details, serve};

fn item(key: &str, value: &'static [u8]) -> StateItem {
    StateItem { key: key.to_owned(), value: Bytes::from_static(value), ..StateItem::default() }
}

fn with_etag(item: StateItem, etag: &str) -> StateItem {
    StateItem { etag: Some(Etag { value: etag.to_owned() }), ..item }
}

fn with_metadata(mut item: StateItem, name: &str, value: &str) -> StateItem {
    item.metadata.insert(name.to_owned(), value.to_owned());
    item
}

fn save(store: &str, states: Vec<StateItem>) -> SaveStateRequest {
    SaveStateRequest { store_name: store.to_owned(), states }
}

fn get(store: &str, key: &str) -> GetStateRequest {
    GetStateRequest { store_name: store.to_owned(), key: key.to_owned(), ..GetStateRequest::default() }
}

fn transact(store: &str, operations: Vec<(&str, StateItem)>) -> ExecuteStateTransactionRequest {
    let operations = operations
        .into_iter()
        .map(|(kind, item)| TransactionalStateOperation { operation_type: kind.to_owned(), request: Some(item) });
    ExecuteStateTransactionRequest {
        store_name: store.to_owned(),
        operations: operations.collect(),
        ..ExecuteStateTransactionRequest::default()
    }
}

#[tokio::test]
async fn what_is_saved_is_read_with_its_etag_and_metadata() {
    let (mut client, _door) = client().await;
    let states = vec![item("raw", b"\0\xff raw"), with_metadata(item("ttl", b"1"), "ttlInSeconds", "60")];
    client.save_state(save("mem", states)).await.expect("saved");

    let raw = client.get_state(get("mem", "raw")).await.expect("read").into_inner();
    assert_eq!((&raw.data[..], raw.etag.as_str()), (&b"\0\xff raw"[..], "1"));
    let ttl = client.get_state(get("mem", "ttl")).await.expect("read").into_inner();
    assert_eq!(ttl.metadata, HashMap::from([("ttlExpireTime".to_owned(), "in 60".to_owned())]));
    let missing = client.get_state(get("mem", "missing")).await.expect("no error").into_inner();
    assert_eq!(missing, trilby_proto::runtime::v1::GetStateResponse::default());
}

#[tokio::test]
async fn a_value_is_json_only_if_its_metadata_say_so() {
    let (mut client, _door) = client().await;
    let json = with_metadata(item("json", b"{\"b\": 1,  \"a\":2}"), "contentType", "application/json");
    client.save_state(save("mem", vec![json, item("bytes", b"{\"b\": 1}")])).await.expect("saved");
    assert_eq!(client.get_state(get("mem", "json")).await.expect("read").into_inner().data, &b"{\"a\":2,\"b\":1}"[..]);
    assert_eq!(client.get_state(get("mem", "bytes")).await.expect("read").into_inner().data, &b"{\"b\": 1}"[..]);
}

#[tokio::test]
async fn bulk_reads_answer_each_key_and_each_failure_by_itself() {
    let (mut client, _door) = client().await;
    client.save_state(save("mem", vec![item("a", b"1")])).await.expect("saved");
    let keys = ["a", "missing", "broken"].map(str::to_owned).to_vec();
    let request = GetBulkStateRequest { store_name: "mem".to_owned(), keys, ..GetBulkStateRequest::default() };
    let items = client.get_bulk_state(request).await.expect("read").into_inner().items;
    let seen: Vec<_> = items.iter().map(|item| (item.key.as_str(), &item.data[..], item.error.as_str())).collect();
    assert_eq!(seen, [("a", &b"1"[..], ""), ("missing", b"", ""), ("broken", b"", "the store is down")]);

    let none = GetBulkStateRequest { store_name: "mem".to_owned(), ..GetBulkStateRequest::default() };
    assert!(client.get_bulk_state(none).await.expect("no error").into_inner().items.is_empty());
}

#[tokio::test]
async fn deletes_and_transactions_change_what_is_read() {
    let (mut client, _door) = client().await;
    let all = vec![item("a", b"1"), item("b", b"1"), item("c", b"1")];
    client.save_state(save("mem", all)).await.expect("saved");
    let delete =
        DeleteStateRequest { store_name: "mem".to_owned(), key: "a".to_owned(), ..DeleteStateRequest::default() };
    client.delete_state(delete).await.expect("deleted");
    let delete = DeleteBulkStateRequest { store_name: "mem".to_owned(), states: vec![item("b", b"")] };
    client.delete_bulk_state(delete).await.expect("deleted");
    let both = transact("mem", vec![("upsert", item("d", b"2")), ("delete", item("c", b""))]);
    client.execute_state_transaction(both).await.expect("done");
    for (key, value) in [("a", &b""[..]), ("b", b""), ("c", b""), ("d", b"2")] {
        assert_eq!(client.get_state(get("mem", key)).await.expect("read").into_inner().data, value, "{key}");
    }
}

/// What the door says of a failed call: code, message, reason, other details.
fn check(answer: Result<(), Status>, code: Code, message: &str, reason: &str, others: &[&str]) {
    let status = answer.expect_err(message);
    assert_eq!((status.code(), status.message()), (code, message));
    if reason.is_empty() {
        assert!(status.details().is_empty(), "{message}: a plain status has no details");
        return;
    }
    let (names, info) = details(&status);
    let info = info.expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "dapr.io"), "{message}");
    assert_eq!(names, others, "{message}");
}

/// Golden: grpc/state-mem.
#[tokio::test]
async fn failed_reads_and_writes_are_told_as_daprd_tells_them() {
    let (mut client, _door) = client().await;
    client.save_state(save("mem", vec![item("a", b"1")])).await.expect("saved");
    let first_write =
        Some(StateOptions { concurrency: StateConcurrency::ConcurrencyFirstWrite.into(), consistency: 0 });
    let exists = StateItem { options: first_write, ..item("a", b"2") };
    let mismatch = "possible etag mismatch. error from state store";

    let answer = client.get_state(get("nostore", "k")).await.map(drop);
    check(answer, Code::InvalidArgument, "state store nostore is not found", "DAPR_STATE_NOT_FOUND", &[]);
    let answer = client.get_state(get("mem", "a||b")).await.map(drop);
    let illegal = "input key/keyPrefix 'a||b' can't contain '||'";
    check(answer, Code::InvalidArgument, illegal, "DAPR_STATE_ILLEGAL_KEY", &["BadRequest", "ResourceInfo"]);
    let answer = client.get_state(get("mem", "broken")).await.map(drop);
    let message = "fail to get broken from state store mem: the store is down";
    check(answer, Code::Internal, message, "ERR_STATE_GET", &[]);
    let answer = client.save_state(save("mem", vec![item("", b"1")])).await.map(drop);
    check(answer, Code::InvalidArgument, "state key cannot be empty", "ERR_STATE_SAVE", &[]);
    let answer = client.save_state(save("mem", vec![with_etag(item("a", b"2"), "9")])).await.map(drop);
    let message = format!("failed saving state in state store mem: {mismatch}: key=myapp||a");
    check(answer, Code::Aborted, &message, "ERR_STATE_SAVE", &[]);
    let answer = client.save_state(save("mem", vec![exists])).await.map(drop);
    let message = format!("failed saving state in state store mem: {mismatch}: exists");
    check(answer, Code::Aborted, &message, "ERR_STATE_SAVE", &[]);
    let answer = client.save_state(save("mem", vec![with_etag(item("a", b"2"), "bad")])).await.map(drop);
    let message = "failed saving state in state store mem: invalid etag value: no number";
    check(answer, Code::InvalidArgument, message, "ERR_STATE_SAVE", &[]);
    let json = with_metadata(item("a", b"{"), "contentType", "application/json");
    let status = client.save_state(save("mem", vec![json])).await.expect_err("not JSON");
    assert_eq!((status.code(), details(&status).1.expect("info").reason.as_str()), (Code::Internal, "ERR_STATE_SAVE"));

    let delete = |key: &str, etag: &str| DeleteStateRequest {
        store_name: "mem".to_owned(),
        key: key.to_owned(),
        etag: Some(Etag { value: etag.to_owned() }),
        ..DeleteStateRequest::default()
    };
    let answer = client.delete_state(delete("a", "9")).await.map(drop);
    let message = format!("failed deleting state with key a: {mismatch}: key=myapp||a");
    check(answer, Code::Aborted, &message, "ERR_STATE_DELETE", &[]);
    let answer = client.delete_state(delete("a", "bad")).await.map(drop);
    let message = "failed deleting state with key a: invalid etag value: no number";
    check(answer, Code::InvalidArgument, message, "ERR_STATE_DELETE", &[]);
    let answer = client.delete_state(delete("broken", "")).await.map(drop);
    let message = "failed deleting state with key broken: the store is down";
    check(answer, Code::Internal, message, "ERR_STATE_DELETE", &[]);

    for (etag, code, cause) in [
        (
            "9",
            Code::Aborted,
            "possible etag mismatch. error from state store: possible etag mismatch. error from state store: key=myapp||a",
        ),
        ("bad", Code::InvalidArgument, "invalid etag value: invalid etag value: no number"),
    ] {
        let states = vec![item("x", b""), with_etag(item("a", b""), etag)];
        let request = DeleteBulkStateRequest { store_name: "mem".to_owned(), states };
        let answer = client.delete_bulk_state(request).await.map(drop);
        check(
            answer,
            code,
            &format!("failed deleting state in state store mem: {cause}"),
            "ERR_STATE_BULK_DELETE",
            &[],
        );
    }
    let states = vec![item("x", b""), item("broken", b"")];
    let answer =
        client.delete_bulk_state(DeleteBulkStateRequest { store_name: "mem".to_owned(), states }).await.map(drop);
    let message = "failed deleting state in state store mem: the store is down";
    check(answer, Code::Internal, message, "ERR_STATE_BULK_DELETE", &[]);
}

/// Golden: grpc/state-mem.
#[tokio::test]
async fn failed_transactions_and_queries_are_told_as_daprd_tells_them() {
    let (mut client, _door) = client().await;

    let answer = client.execute_state_transaction(transact("plain", vec![("bad", item("a", b""))])).await.map(drop);
    let message = "state store plain doesn't support transactions";
    let reason = "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED";
    check(answer, Code::Unimplemented, message, reason, &["Help", "ResourceInfo"]);
    let answer = client.execute_state_transaction(transact("mem", vec![("bad", item("a", b""))])).await.map(drop);
    let message = "operation type bad not supported";
    check(answer, Code::Unimplemented, message, "ERR_NOT_SUPPORTED_STATE_OPERATION", &[]);
    let four = vec![("upsert", item("a", b"1")); 4];
    let status = client.execute_state_transaction(transact("mem", four)).await.expect_err("too many");
    let (others, info) = details(&status);
    let info = info.expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), others), ("DAPR_STATE_TOO_MANY_TRANSACTIONS", vec!["ResourceInfo".to_owned()]));
    assert_eq!(info.metadata["maxOpsPerTransaction"], "3");
    let stale = vec![("upsert", with_etag(item("a", b"1"), "9"))];
    let answer = client.execute_state_transaction(transact("mem", stale)).await.map(drop);
    let message =
        "error while executing state transaction: possible etag mismatch. error from state store: key=myapp||a";
    check(answer, Code::Internal, message, "ERR_STATE_TRANSACTION", &[]);
    client.execute_state_transaction(transact("mem", vec![])).await.expect("nothing to do");

    let query = |store: &str| QueryStateRequest { store_name: store.to_owned(), ..QueryStateRequest::default() };
    let answer = client.query_state_alpha1(query("mem")).await.map(drop);
    let message = "state store does not support querying";
    check(answer, Code::Internal, message, "DAPR_STATE_QUERYING_NOT_SUPPORTED", &["ResourceInfo"]);
    let answer = client.query_state_alpha1(query("nostore")).await.map(drop);
    check(answer, Code::InvalidArgument, "state store nostore is not found", "DAPR_STATE_NOT_FOUND", &[]);
}

/// Golden: grpc/nothing-configured.
#[tokio::test]
async fn an_app_without_stores_is_told_so() {
    let door = serve(Setup { no_stores: true, ..Setup::default() }).await;
    let mut client = door.client().await;
    let status = client.get_state(get("s", "k")).await.expect_err("no store");
    assert_eq!(details(&status).1.expect("an ErrorInfo").metadata, HashMap::new(), "over gRPC the app id is not told");
    let answer = client.save_state(save("s", vec![])).await.map(drop);
    check(answer, Code::FailedPrecondition, "state store s is not configured", "DAPR_STATE_NOT_CONFIGURED", &[]);
    let secret = GetSecretRequest { store_name: "s".to_owned(), ..GetSecretRequest::default() };
    let answer = client.get_secret(secret).await.map(drop);
    check(answer, Code::FailedPrecondition, "secret store is not configured", "", &[]);
}

#[tokio::test]
async fn secrets_are_read_within_their_scope() {
    let (mut client, _door) = client().await;
    let secret = |store: &str, key: &str| GetSecretRequest {
        store_name: store.to_owned(),
        key: key.to_owned(),
        ..GetSecretRequest::default()
    };
    let plain = client.get_secret(secret("sec", "plain")).await.expect("allowed").into_inner();
    assert_eq!(plain.data, HashMap::from([("plain".to_owned(), "p".to_owned())]));
    let all = GetBulkSecretRequest { store_name: "sec".to_owned(), ..GetBulkSecretRequest::default() };
    let all = client.get_bulk_secret(all).await.expect("allowed").into_inner();
    assert_eq!(all.data.keys().collect::<Vec<_>>(), ["plain"]);

    let answer = client.get_secret(secret("sec", "enc")).await.map(drop);
    check(answer, Code::PermissionDenied, "access denied by policy to get \"enc\" from \"sec\"", "", &[]);
    let answer = client.get_secret(secret("other", "plain")).await.map(drop);
    check(answer, Code::InvalidArgument, "failed finding secret store with key other", "", &[]);
    let answer = client.get_secret(secret("sec", "nope")).await.map(drop);
    let message = "failed getting secret with key nope from secret store sec: secret nope not found";
    check(answer, Code::Internal, message, "", &[]);
}

#[tokio::test]
async fn metadata_tell_what_there_is_and_keep_notes() {
    let (mut client, _door) = client().await;
    for (key, value) in [("color", "blue"), ("", "ignored")] {
        let note = SetMetadataRequest { key: key.to_owned(), value: value.to_owned() };
        client.set_metadata(note).await.expect("kept");
    }
    let metadata = client.get_metadata(GetMetadataRequest {}).await.expect("told").into_inner();
    assert_eq!((metadata.id.as_str(), metadata.runtime_version.as_str()), ("myapp", "edge"));
    let notes = [("color", "blue"), ("daprRuntimeVersion", "edge")];
    assert_eq!(metadata.extended_metadata, notes.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(metadata.registered_components[0].capabilities, ["ETAG", "TRANSACTIONAL"]);
    assert_eq!(metadata.http_endpoints[0].name, "outside");
    let connection = metadata.app_connection_properties.expect("always there");
    assert_eq!((connection.port, connection.protocol.as_str(), connection.max_concurrency), (6000, "http", 0));
    let actors = metadata.actor_runtime.expect("always there");
    assert_eq!((actors.runtime_status, actors.placement.as_str()), (1, "placement: disconnected"));
    assert!(metadata.workflows.is_some() && metadata.scheduler.is_none());
}

#[tokio::test]
async fn a_method_of_a_later_block_is_unknown() {
    let (mut client, _door) = client().await;
    let answer = client.schedule_job(ScheduleJobRequest::default()).await.map(drop);
    let message = "unknown method ScheduleJob for service dapr.proto.runtime.v1.Dapr";
    check(answer, Code::Unimplemented, message, "", &[]);
    let answer = client.shutdown(ShutdownRequest {}).await.map(drop);
    let message = "unknown method Shutdown for service dapr.proto.runtime.v1.Dapr";
    check(answer, Code::Unimplemented, message, "", &[]);
}

#[tokio::test]
async fn shutdown_is_passed_to_its_hook() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let hook = Arc::new(move |how| notes.lock().unwrap().push(how));
    let options = Options { shutdown: Some(hook), ..Options::default() };
    let door = serve(Setup { options, ..Setup::default() }).await;
    let mut client = door.client().await;
    client.shutdown(ShutdownRequest {}).await.expect("accepted");
    let mut forced = Request::new(ShutdownRequest {});
    forced.metadata_mut().insert("dapr-force-shutdown", "true".parse().expect("ASCII"));
    client.shutdown(forced).await.expect("accepted");
    assert_eq!(*asked.lock().unwrap(), [Shutdown::Graceful, Shutdown::Forced]);
}
