//! From events of `tracing` to lines.

use std::fmt::Debug;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::Context;

use super::{
    Level, Log,
    format::{Line, Source},
};

/// Where events come from that are lines which a guest printed.
const GUEST: &str = "trilby::guest";

/// Writes every event that it gets.
pub(super) struct Layer {
    log: Log,
}

impl Layer {
    pub(super) fn new(log: Log) -> Self {
        Self { log }
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        let metadata = event.metadata();
        self.log.write(&Line {
            level: level(*metadata.level()),
            app_id: found.app_id.as_deref(),
            scope: scope(metadata.target()),
            message: &found.message,
            fields: &found.fields,
            source: if metadata.target() == GUEST { Source::App } else { Source::Runtime },
        });
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// daprd's name for the part of the runtime that a module is.
fn scope(target: &str) -> &str {
    match target.split("::").next().unwrap_or_default() {
        "cli" | "trilby" | "trilby_runtime" | "trilby_core" => "dapr.runtime",
        "trilby_components" | "trilby_component" => "dapr.contrib",
        "trilby_door_http" => "dapr.runtime.http",
        "trilby_door_grpc" => "dapr.runtime.grpc.api",
        "trilby_door_wasm" | "trilby_wasm" => "dapr.runtime.wasm",
        library => library,
    }
}

/// The fields of an event.
#[derive(Default)]
struct Found {
    app_id: Option<String>,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Found {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "app_id" => self.app_id = Some(value),
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_daprds_names() {
        assert_eq!(scope("trilby_door_http::server"), "dapr.runtime.http");
        assert_eq!(scope("cli::sidecar"), "dapr.runtime");
        assert_eq!(scope("hyper::proto"), "hyper");
    }
}
