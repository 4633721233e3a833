//! What `wit/` becomes in Rust: one module per interface, with the traits that this crate implements.

// The generated code is not ours to lint.
#![allow(unreachable_pub, unused_qualifications, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "trilby:dapr/service-app",
    imports: {
        "trilby:dapr/state": async | trappable,
        "trilby:dapr/secrets": async | trappable,
        "trilby:dapr/invoke": async | trappable,
    },
    exports: { default: async },
    trappable_error_type: { "trilby:dapr/types.error" => trilby_core::Error },
    require_store_data_send: true,
});
