//! The HTTP door as its callers see it: in process, over sockets, and towards apps.

mod api;
mod app;
mod server;
mod support;
