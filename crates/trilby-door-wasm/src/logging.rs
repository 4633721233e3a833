//! `wasi:logging`: lines of the app's log, among those that the guest prints, within the same bounds.

use trilby_wasm::Stream;

use crate::{
    guest::Guest,
    wit::wasi::logging::logging::{self, Level},
};

impl logging::Host for Guest {
    fn log(&mut self, level: Level, context: String, message: String) {
        let (stream, name) = match level {
            Level::Trace => (Stream::Stdout, "trace"),
            Level::Debug => (Stream::Stdout, "debug"),
            Level::Info => (Stream::Stdout, "info"),
            Level::Warn => (Stream::Stderr, "warn"),
            Level::Error => (Stream::Stderr, "error"),
            Level::Critical => (Stream::Stderr, "critical"),
        };
        let place = if context.is_empty() { String::new() } else { format!(" {context}:") };
        for line in message.lines() {
            self.logs().line(stream, &format!("[{name}]{place} {line}"));
        }
    }
}
