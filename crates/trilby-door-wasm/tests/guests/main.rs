//! The door, tried with real guests: those of `fixtures/guests` and `examples/orders`, as `cargo xtask guests` builds
//! them.

mod blocks;
mod hostile;
mod http;
mod http_async;
mod javascript;
mod loading;
mod orders;
mod world;
