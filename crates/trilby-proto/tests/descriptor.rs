//! The descriptor set, and with it all that is generated from it, has Dapr's names, numbers and types.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::{Message, Name};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
use tonic::server::NamedService;

use trilby_proto::common::v1::StateItem;
use trilby_proto::google::rpc::{ErrorInfo, Status};
use trilby_proto::runtime::v1::dapr_server::{Dapr, DaprServer};

/// RPCs of Dapr 1.18, by kind.
const UNARY: &str = "
    InvokeService
    GetState GetBulkState SaveState DeleteState DeleteBulkState ExecuteStateTransaction QueryStateAlpha1
    PublishEvent BulkPublishEvent BulkPublishEventAlpha1
    InvokeBinding
    GetSecret GetBulkSecret
    RegisterActorTimer UnregisterActorTimer RegisterActorReminder UnregisterActorReminder
    UnregisterActorRemindersByType ListActorReminders GetActorReminder
    GetActorState ExecuteActorStateTransaction InvokeActor
    GetConfiguration GetConfigurationAlpha1 UnsubscribeConfiguration UnsubscribeConfigurationAlpha1
    TryLockAlpha1 UnlockAlpha1
    SubtleGetKeyAlpha1 SubtleEncryptAlpha1 SubtleDecryptAlpha1 SubtleWrapKeyAlpha1 SubtleUnwrapKeyAlpha1
    SubtleSignAlpha1 SubtleVerifyAlpha1
    GetMetadata SetMetadata
    StartWorkflowAlpha1 GetWorkflowAlpha1 PurgeWorkflowAlpha1 TerminateWorkflowAlpha1 PauseWorkflowAlpha1
    ResumeWorkflowAlpha1 RaiseEventWorkflowAlpha1
    StartWorkflowBeta1 GetWorkflowBeta1 PurgeWorkflowBeta1 TerminateWorkflowBeta1 PauseWorkflowBeta1
    ResumeWorkflowBeta1 RaiseEventWorkflowBeta1
    Shutdown
    ScheduleJob GetJob DeleteJob DeleteJobsByPrefix ListJobs
    ScheduleJobAlpha1 GetJobAlpha1 DeleteJobAlpha1 DeleteJobsByPrefixAlpha1 ListJobsAlpha1
    ConverseAlpha1 ConverseAlpha2
";
const SERVER_STREAMING: &str = "SubscribeConfiguration SubscribeConfigurationAlpha1";
const BOTH_STREAMING: &str = "SubscribeTopicEventsAlpha1 SubscribeActorEventsAlpha1 EncryptAlpha1 DecryptAlpha1";

#[test]
fn dapr_service_has_every_rpc_of_its_kind() {
    let set = descriptor_set();
    let dapr = service(&set, "Dapr");
    let of_kind = |client: bool, server: bool| -> BTreeSet<&str> {
        let kind = (client, server);
        dapr.method
            .iter()
            .filter(|rpc| (rpc.client_streaming(), rpc.server_streaming()) == kind)
            .map(|rpc| rpc.name())
            .collect()
    };
    assert_eq!(of_kind(false, false), UNARY.split_whitespace().collect());
    assert_eq!(of_kind(false, true), SERVER_STREAMING.split_whitespace().collect());
    assert_eq!(of_kind(true, true), BOTH_STREAMING.split_whitespace().collect());
    assert_eq!(dapr.method.len(), 72);
}

#[test]
fn app_callback_services_have_every_rpc() {
    let set = descriptor_set();
    let names = |name| service(&set, name).method.iter().map(|rpc| rpc.name()).collect::<BTreeSet<_>>();
    assert_eq!(
        names("AppCallback"),
        BTreeSet::from([
            "OnInvoke",
            "ListTopicSubscriptions",
            "OnTopicEvent",
            "OnBulkTopicEvent",
            "ListInputBindings",
            "OnBindingEvent",
            "OnJobEvent",
        ])
    );
    assert_eq!(names("AppCallbackHealthCheck"), BTreeSet::from(["HealthCheck"]));
    assert_eq!(names("AppCallbackAlpha"), BTreeSet::from(["OnBulkTopicEventAlpha1", "OnJobEventAlpha1"]));
}

#[test]
fn fields_have_the_numbers_and_types_of_dapr() {
    use Type::{Bool, Bytes, Message, String, Uint32, Uint64};

    check(
        "dapr.proto.common.v1.StateItem",
        &[
            ("key", 1, String),
            ("value", 2, Bytes),
            ("etag", 3, Message),
            ("metadata", 4, Message),
            ("options", 5, Message),
        ],
    );
    check(
        "dapr.proto.common.v1.InvokeRequest",
        &[("method", 1, String), ("data", 2, Message), ("content_type", 3, String), ("http_extension", 4, Message)],
    );
    check("dapr.proto.common.v1.StreamPayload", &[("data", 1, Bytes), ("seq", 2, Uint64)]);
    check("dapr.proto.runtime.v1.InvokeServiceRequest", &[("id", 1, String), ("message", 3, Message)]);
    check(
        "dapr.proto.runtime.v1.ExecuteStateTransactionRequest",
        &[("storeName", 1, String), ("operations", 2, Message), ("metadata", 3, Message)],
    );
    check(
        "dapr.proto.runtime.v1.EncryptRequestOptions",
        &[
            ("component_name", 1, String),
            ("key_name", 2, String),
            ("key_wrap_algorithm", 3, String),
            ("data_encryption_cipher", 10, String),
            ("omit_decryption_key_name", 11, Bool),
            ("decryption_key_name", 12, String),
        ],
    );
    check(
        "dapr.proto.runtime.v1.Job",
        &[
            ("name", 1, String),
            ("schedule", 2, String),
            ("repeats", 3, Uint32),
            ("due_time", 4, String),
            ("ttl", 5, String),
            ("data", 6, Message),
            ("failure_policy", 7, Message),
        ],
    );
    check(
        "dapr.proto.runtime.v1.GetMetadataResponse",
        &[
            ("id", 1, String),
            ("active_actors_count", 2, Message),
            ("registered_components", 3, Message),
            ("extended_metadata", 4, Message),
            ("subscriptions", 5, Message),
            ("http_endpoints", 6, Message),
            ("app_connection_properties", 7, Message),
            ("runtime_version", 8, String),
            ("enabled_features", 9, String),
            ("actor_runtime", 10, Message),
            ("scheduler", 11, Message),
            ("workflows", 12, Message),
            ("mcp_servers", 13, Message),
            ("workflow_access_policies", 14, Message),
            ("resiliencies", 15, Message),
        ],
    );
}

#[test]
fn a_server_may_leave_methods_out() {
    struct Empty;
    impl Dapr for Empty {}

    fn name<S: NamedService>(_: S) -> &'static str {
        S::NAME
    }
    assert_eq!(name(DaprServer::new(Empty)), "dapr.proto.runtime.v1.Dapr");
}

/// The descriptor set says what clients should avoid, although the Rust types do not.
#[test]
fn descriptor_set_keeps_deprecations() {
    let set = descriptor_set();
    let deprecated: BTreeSet<_> = service(&set, "Dapr")
        .method
        .iter()
        .filter(|rpc| rpc.options.as_ref().is_some_and(|options| options.deprecated()))
        .map(|rpc| rpc.name())
        .collect();
    assert!(deprecated.contains("ScheduleJobAlpha1"));
    assert!(!deprecated.contains("ScheduleJob"));
}

/// Decoding from `Bytes` shares the buffer, which `Vec` fields could not.
#[test]
fn payloads_are_not_copied_when_decoded() {
    let item = StateItem { key: "k".to_owned(), value: Bytes::from(vec![7; 1024]), ..StateItem::default() };
    let wire = Bytes::from(item.encode_to_vec());
    let decoded = StateItem::decode(wire.clone()).expect("just encoded");
    assert_eq!(decoded, item);
    assert!(wire.as_ptr_range().contains(&decoded.value.as_ptr()));
}

#[test]
fn error_details_have_the_type_urls_that_clients_expect() {
    assert_eq!(ErrorInfo::type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
    let detail = prost_types::Any::from_msg(&ErrorInfo { domain: "dapr.io".to_owned(), ..ErrorInfo::default() })
        .expect("a message encodes into a growing buffer");
    let status = Status { code: 5, message: String::new(), details: vec![detail] };
    let read: ErrorInfo = status.details[0].to_msg().expect("just encoded");
    assert_eq!(read.domain, "dapr.io");
}

fn descriptor_set() -> FileDescriptorSet {
    FileDescriptorSet::decode(trilby_proto::FILE_DESCRIPTOR_SET).expect("the checked-in set is valid")
}

fn service<'a>(set: &'a FileDescriptorSet, name: &str) -> &'a ServiceDescriptorProto {
    set.file
        .iter()
        .filter(|file| file.package() == "dapr.proto.runtime.v1")
        .flat_map(|file| &file.service)
        .find(|service| service.name() == name)
        .unwrap_or_else(|| panic!("no service {name}"))
}

/// Asserts the fields of a message, all of them, in the order of their numbers.
fn check(message: &str, expect: &[(&str, i32, Type)]) {
    let set = descriptor_set();
    let (package, name) = message.rsplit_once('.').expect("a full name");
    let found: &DescriptorProto = set
        .file
        .iter()
        .filter(|file| file.package() == package)
        .flat_map(|file| &file.message_type)
        .find(|found| found.name() == name)
        .unwrap_or_else(|| panic!("no message {message}"));
    let field = |field: &FieldDescriptorProto| (field.name().to_owned(), field.number(), field.r#type());
    let expect: Vec<_> = expect.iter().map(|(name, number, kind)| ((*name).to_owned(), *number, *kind)).collect();
    assert_eq!(found.field.iter().map(field).collect::<Vec<_>>(), expect, "{message}");
}
