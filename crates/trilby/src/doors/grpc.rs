//! The gRPC door of an app.

use std::sync::Arc;

use tokio::task::JoinSet;
use trilby_door_grpc::{Access, GrpcDoor, Options, Shutdown};
use trilby_runtime::configuration::Protocol;

use super::{Served, rules};
use crate::address::Bound;

pub(super) fn serve(served: &Served<'_>, bound: Bound, tasks: &mut JoinSet<()>) {
    let (allowed, denied) = rules(served.configuration, Protocol::Grpc);
    let ask = served.stop.asker(&served.api.app.id);
    let options = Options {
        max_body_bytes: served.settings.max_body_bytes,
        max_header_bytes: u32::try_from(served.settings.max_header_bytes).unwrap_or(u32::MAX),
        drain_timeout: served.settings.drain_timeout,
        api_token: served.settings.api_token.clone(),
        access: Access { allowed, denied },
        shutdown: Some(Arc::new(move |how| ask(how == Shutdown::Forced))),
    };
    let door = GrpcDoor::new(served.api.clone(), options);
    let stopped = served.stop.stopped();
    tasks.spawn(async move {
        match bound {
            Bound::Tcp(listener) => door.serve(listener, stopped).await,
            Bound::Unix(listener, _file) => door.serve_unix(listener, stopped).await,
        }
    });
}
