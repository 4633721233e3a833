//! Messages, bindings, configuration, locks, cryptography and conversations, called by the mirror guest.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use trilby_core::Body;

use crate::{
    blocks::{bytes, error, ok, pair, perform},
    world::{World, call, call_bytes},
};

#[tokio::test]
async fn what_is_published_reaches_the_broker_as_an_event() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let options = json!({ "content-type": "application/json", "metadata": [["cloudevent.type", "order.placed"]] });
    let publish = json!({ "op": "publish", "pubsub": "pubsub", "topic": "orders", "data": bytes(b"{\"id\":7}"), "options": options });
    assert_eq!(ok(&mirror, publish).await, Value::Null);
    let published = world.fakes.broker.take();
    let event: Value = serde_json::from_slice(&published[0].data).expect("JSON");
    assert_eq!((published.len(), published[0].topic.as_str()), (1, "orders"));
    assert_eq!((&event["type"], &event["source"]), (&json!("order.placed"), &json!("mirror")));
    assert_eq!((&event["data"], &event["datacontenttype"]), (&json!({ "id": 7 }), &json!("application/json")));
}

#[tokio::test]
async fn without_options_a_message_is_text_and_with_raw_payload_it_is_bytes() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let publish = |options: Value| json!({ "op": "publish", "pubsub": "pubsub", "topic": "t", "data": bytes(b"hi"), "options": options });
    ok(&mirror, publish(Value::Null)).await;
    ok(&mirror, publish(json!({ "metadata": [["rawPayload", "true"]] }))).await;
    let published = world.fakes.broker.take();
    let event: Value = serde_json::from_slice(&published[0].data).expect("JSON");
    assert_eq!((&event["data"], &event["datacontenttype"]), (&json!("hi"), &json!("text/plain")));
    assert_eq!(published[1].data, "hi");
}

#[tokio::test]
async fn each_message_of_many_has_its_own_result_in_order() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let raw = json!({ "metadata": [["rawPayload", "true"]] });
    let entry = |id: &str, text: &[u8]| json!({ "entry-id": id, "data": bytes(text), "options": raw });
    let publish = |entries: Value| {
        json!({ "op": "publish-bulk", "pubsub": "pubsub", "topic": "t", "entries": entries,
            "metadata": [["rawPayload", "true"]] })
    };
    let rows = ok(&mirror, publish(json!([entry("b", b"1"), entry("a", b"{\"refuse\"}"), entry("c", b"3")]))).await;
    assert_eq!((&rows[0], &rows[2]), (&json!(["b", { "ok": null }]), &json!(["c", { "ok": null }])));
    assert_eq!((&rows[1][0], &rows[1][1]["error"]["code"]), (&json!("a"), &json!("ERR_PUBSUB_PUBLISH_MESSAGE")));
    assert_eq!(rows[1][1]["error"]["kind"], "unavailable");
    let published: Vec<_> = world.fakes.broker.take().into_iter().map(|request| request.data).collect();
    assert_eq!(published, ["1", "3"]);

    for entries in [json!([entry("a", b"1"), entry("a", b"2")]), json!([entry("", b"1")])] {
        assert_eq!(error(&mirror, publish(entries)).await, pair("invalid", "ERR_PUBSUB_EVENTS_SER"));
    }
    assert!(world.fakes.broker.take().is_empty());
}

#[tokio::test]
async fn a_binding_answers_with_data_and_metadata() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let invoke = |operation: &str| {
        json!({ "op": "invoke-binding", "name": "echo", "operation": operation, "data": bytes(b"hi"),
            "metadata": [["mark", "x"]] })
    };
    let reply = ok(&mirror, invoke("create")).await;
    assert_eq!(reply, json!({ "data": bytes(b"hi"), "content-type": "text/plain", "metadata": { "mark": "x" } }));
    assert_eq!(error(&mirror, invoke("fail")).await.0, "denied");
    assert_eq!(error(&mirror, invoke("dance")).await.1, "ERR_INVOKE_OUTPUT_BINDING");
}

#[tokio::test]
async fn configuration_is_read_by_key_or_as_a_whole() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let get = |keys: Value| json!({ "op": "get-configuration", "store": "configstore", "keys": keys });
    let discount = json!({ "discount": { "value": "10", "version": "3", "metadata": { "by": "ops" } } });
    assert_eq!(ok(&mirror, get(json!([]))).await, discount);
    assert_eq!(ok(&mirror, get(json!(["discount"]))).await, discount);
    assert_eq!(ok(&mirror, get(json!(["other"]))).await, json!({}));
}

#[tokio::test]
async fn a_lease_that_is_dropped_or_released_is_free_again() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let op = |op: &str, owner: &str, release: bool| {
        json!({ "op": op, "store": "lockstore", "resource-id": "r", "owner": owner, "expiry-seconds": 60,
            "release": release })
    };
    for _ in 0..2 {
        assert_eq!(ok(&mirror, op("lease", "a", false)).await, "dropped");
        assert_eq!(ok(&mirror, op("lease", "a", true)).await, "success");
    }
    assert_eq!(ok(&mirror, op("try-lock", "a", false)).await, true);
    assert_eq!(ok(&mirror, op("try-lock", "b", false)).await, false);
    assert_eq!(ok(&mirror, op("lease", "b", false)).await, "held");
    assert_eq!(ok(&mirror, op("unlock", "b", false)).await, "belongs-to-others");
    assert_eq!(ok(&mirror, op("unlock", "a", false)).await, "success");
    assert_eq!(ok(&mirror, op("unlock", "a", false)).await, "does-not-exist");
}

#[tokio::test]
async fn a_lease_that_was_not_taken_leaves_nothing_in_the_host() {
    let world = World::new();
    let start = world.start_with("mirror", "mirror", |options| options.limits.resources = 20);
    let Some(mirror) = start.await else { return };
    let op =
        |op: &str| json!({ "op": op, "store": "lockstore", "resource-id": "r", "owner": "a", "expiry-seconds": 60 });
    ok(&mirror, op("try-lock")).await;
    for _ in 0..100 {
        assert_eq!(ok(&mirror, op("lease")).await, "held");
    }
}

#[tokio::test]
async fn a_document_is_encrypted_and_decrypted_as_a_whole() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let encrypt = |key: &str| {
        json!({ "op": "encrypt", "provider": "vault", "plaintext": bytes(b"hello"),
            "options": { "key-name": key, "key-wrap-algorithm": "AES" } })
    };
    let document = ok(&mirror, encrypt("mykey")).await;
    let text = BASE64_STANDARD.decode(document.as_str().expect("base64")).expect("base64");
    assert!(text.starts_with(b"dapr.io/enc/v1\n"));
    let decrypt = |document: Value| json!({ "op": "decrypt", "provider": "vault", "document": document });
    assert_eq!(ok(&mirror, decrypt(document)).await, bytes(b"hello"));

    let mut changed = text;
    *changed.last_mut().expect("not empty") ^= 1;
    assert!(!perform(&mirror, decrypt(json!(bytes(&changed)))).await["error"].is_null());
    assert!(!perform(&mirror, encrypt("nokey")).await["error"].is_null());
    let nowhere = json!({ "op": "decrypt", "provider": "nowhere", "document": "" });
    assert_eq!(error(&mirror, nowhere).await, pair("not-found", "ERR_CRYPTO_PROVIDER_NOT_FOUND"));
}

#[tokio::test]
async fn keys_and_short_messages_have_functions_of_their_own() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let request = json!({ "input": bytes(&[0x0f]), "algorithm": "A256GCM", "key-name": "mykey", "nonce": bytes(b"n") });
    for op in ["encrypt-message", "decrypt-message", "wrap-key", "unwrap-key"] {
        let result = ok(&mirror, json!({ "op": op, "provider": "vault", "request": request })).await;
        assert_eq!(result, json!({ "output": bytes(&[0xf0]), "tag": bytes(b"n") }), "{op}");
    }
    let key = json!({ "op": "get-key", "provider": "vault", "key-name": "mykey", "format": "json" });
    assert_eq!(ok(&mirror, key).await, json!({ "name": "mykey/1", "text": "{}" }));
    let of = |op: &str, signature: &[u8]| {
        json!({ "op": op, "provider": "vault", "digest": bytes(b"abc"), "signature": bytes(signature),
            "algorithm": "ES256", "key-name": "mykey" })
    };
    assert_eq!(ok(&mirror, of("sign", b"")).await, bytes(b"cba"));
    assert_eq!(ok(&mirror, of("verify", b"cba")).await, true);
    assert_eq!(ok(&mirror, of("verify", b"abc")).await, false);
}

#[tokio::test]
async fn a_body_is_encrypted_and_decrypted_as_it_streams() {
    let world = World::new();
    let start = world.start_with("documents", "documents", |options| {
        options.limits.memory_bytes = 4 << 20;
        options.max_body_bytes = 32 << 20;
    });
    let Some(documents) = start.await else { return };
    // Larger than the guest's memory, and within what tests read.
    let content: Vec<u8> = (0..7_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    let (status, document) =
        call_bytes(&documents, "POST", "/encrypt?mykey", Body::from(content.clone())).await.expect("answers");
    assert_eq!((status, document.starts_with(b"dapr.io/enc/v1\n")), (200, true));
    let (status, back) =
        call_bytes(&documents, "POST", "/decrypt", Body::from(document.clone())).await.expect("answers");
    assert!(status == 200 && back == content);

    let cut = document.slice(..document.len() - 1);
    assert!(call_bytes(&documents, "POST", "/decrypt", Body::from(cut)).await.is_err(), "a cut document is no answer");
    let (status, text) = call(&documents, "POST", "/decrypt", "nonsense").await.expect("answers");
    assert_eq!(status, 500, "{text}");
}

#[tokio::test]
async fn a_conversation_keeps_its_roles_and_tools() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let messages = json!([
        { "system": { "content": ["be brief"] } },
        { "user": { "name": "ann", "content": ["a", "b"] } },
        { "assistant": { "content": [], "tool-calls": [{ "id": "1", "name": "f", "arguments": "{}" }] } },
        { "tool": { "id": "1", "name": "f", "content": ["42"] } },
    ]);
    let tool = json!({ "name": "f", "parameters": "{\"type\":\"object\"}" });
    let converse =
        |options: Value| json!({ "op": "converse", "name": "model", "messages": messages, "options": options });
    let answer = ok(&mirror, converse(json!({ "tools": [tool] }))).await;
    let choice = json!({
        "finish-reason": "stop", "index": 0,
        "content": "System: be brief; User: a b; Assistant: ; Tool: 42",
        "tool-calls": [{ "id": "call-1", "name": "f", "arguments": "{\"type\":\"object\"}" }],
    });
    let usage = json!({ "prompt": 1, "completion": 2, "total": 3 });
    assert_eq!(answer, json!({ "choices": [choice], "model": "parrot", "usage": usage }));
    let bad = converse(json!({ "parameters": "no JSON" }));
    assert_eq!(error(&mirror, bad).await, pair("invalid", "ERR_CONVERSATION_INVALID_PARMS"));
}
