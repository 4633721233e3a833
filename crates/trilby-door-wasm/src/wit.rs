//! What `wit/` becomes in Rust: one module per interface, with the traits that this crate implements.

// The generated code is not ours to lint.
#![allow(unreachable_pub, unused_qualifications, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package trilby:host;

        world host {
            import trilby:dapr/crypto-streams@0.2.0;
            include trilby:dapr/service-app@0.2.0;
            include trilby:dapr/subscriber-app@0.2.0;
            include trilby:dapr/bulk-subscriber-app@0.2.0;
            include trilby:dapr/input-binding-app@0.2.0;
            include trilby:dapr/configuration-watcher-app@0.2.0;
            include trilby:dapr/health-app@0.2.0;
        }
    ",
    imports: {
        "trilby:dapr/state": async | trappable,
        "trilby:dapr/pubsub": async | trappable,
        "trilby:dapr/bindings": async | trappable,
        "trilby:dapr/secrets": async | trappable,
        "trilby:dapr/configuration": async | trappable,
        "trilby:dapr/lock": async | trappable,
        "trilby:dapr/lock.[drop]lease": async | trappable,
        "trilby:dapr/crypto": async | trappable,
        "trilby:dapr/crypto-streams": async | trappable,
        "trilby:dapr/conversation": async | trappable,
        "trilby:dapr/invoke": async | trappable,
    },
    exports: { default: async },
    with: {
        "wasi:io": wasmtime_wasi::p2::bindings::io,
        "trilby:dapr/lock.lease": crate::lock::Lease,
    },
    trappable_error_type: { "trilby:dapr/types.error" => trilby_core::Error },
    require_store_data_send: true,
});
