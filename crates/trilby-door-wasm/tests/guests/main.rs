//! The door, tried with real guests: those of `fixtures/guests` and `examples/orders`, as `cargo xtask guests` builds
//! them.

mod blocks;
mod fakes;
mod handlers;
mod hostile;
mod hostile_handlers;
mod http;
mod http_async;
mod javascript;
mod loading;
mod orders;
mod other_blocks;
mod world;
