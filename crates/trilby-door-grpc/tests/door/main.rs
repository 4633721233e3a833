//! The gRPC door as its callers see it: over sockets with a generated client, in process, and towards apps.

#![expect(clippy::unwrap_used, reason = "a lock that a panic has poisoned is a test that has failed")]

mod api;
mod app;
mod server;
mod support;
