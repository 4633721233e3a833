//! A client of MQTT 3.1.1, for `pubsub.mqtt3` and `bindings.mqtt3`.
//!
//! Of our own, and not one of the known crates: those acknowledge a publish to nobody, and have one loop for reading and
//! for keeping the connection alive, so that a reader who is slow is taken for dead. The protocol is small and final.

mod client;
mod connection;
mod endpoint;
mod filter;
mod packet;
mod session;

pub(crate) use self::{
    client::{Client, Feed, Identity, Incoming},
    endpoint::Endpoint,
    packet::Qos,
};
