//! The gRPC door as its callers see it: over sockets with a generated client, in process, and towards apps.

mod api;
mod app;
mod server;
mod support;
