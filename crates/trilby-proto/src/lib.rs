//! Dapr's gRPC API as Rust types: messages, clients and servers, generated from `proto/` and checked in.
//!
//! After a change there, run `cargo run --manifest-path crates/trilby-proto/gen/Cargo.toml`; with `-- --check` it writes
//! nothing and fails if the files here are stale. Building this crate needs neither that nor protoc.
//!
//! - Every `bytes` field is a [`bytes::Bytes`], so that a payload passes through without a copy. The exception is
//!   [`prost_types::Any`], whose value is a `Vec<u8>`.
//! - Every method of a server trait has a body that answers `Unimplemented`: a server writes the methods it has.
//! - Names that Dapr calls deprecated carry no `#[deprecated]`, since a server must go on serving them.

/// `dapr.proto.common.v1`: what several building blocks share.
pub mod common {
    pub mod v1 {
        //! State items, invocation requests and answers, stream chunks, job failure policies.
        include!("generated/dapr.proto.common.v1.rs");
    }
}

/// `dapr.proto.runtime.v1`: the `Dapr` service and the callbacks of a gRPC application.
pub mod runtime {
    #[expect(unused_qualifications, reason = "generated code spells paths out")]
    #[expect(clippy::allow_attributes_without_reason, reason = "tonic's own allowances carry none")]
    #[expect(clippy::large_enum_variant, reason = "variants of a oneof are as large as the API makes them")]
    pub mod v1 {
        //! `dapr_client` and `dapr_server` are the API itself; `app_callback_*`, `app_callback_alpha_*` and
        //! `app_callback_health_check_*` are what the runtime calls in an application.
        include!("generated/dapr.proto.runtime.v1.rs");
    }
}

/// `google.rpc`: the error model of gRPC.
pub mod google {
    pub mod rpc {
        //! `Status` and the details that Dapr's errors carry.
        include!("generated/google.rpc.rs");
    }
}

/// Encoded `FileDescriptorSet` of all of the above and what it imports, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
