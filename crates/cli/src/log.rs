//! The log of a process: one line an event, in the forms that daprd has and one for people at a terminal.

mod format;
mod layer;

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::{
    format::{Line, Source},
    layer::Layer,
};

/// How lines are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub level: Level,
    pub format: Format,
    /// In place of standard output.
    pub file: Option<PathBuf>,
    /// Whose lines those are that do not say it.
    pub app_id: String,
}

/// Importance, by daprd's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    /// Only what ends the process.
    Fatal,
}

impl Level {
    /// The level of a name; `warn` and `warning` are one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warning,
            "error" => Self::Error,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    /// As lines and `Log level set to` have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Fatal => LevelFilter::OFF,
        }
    }
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=info msg="…" app_id=… instance=… scope=… type=log ver=…`, daprd's.
    Text,
    /// A JSON object with the same keys, daprd's `--log-as-json`.
    Json,
    /// Time, level and app in columns, then the text.
    Console,
}

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    options: Options,
    instance: String,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// If the log file cannot be written, in words that name it.
    pub(crate) fn open(options: Options) -> Result<Self, String> {
        let out: Box<dyn Write + Send> = match &options.file {
            None => Box::new(io::stdout()),
            Some(path) => {
                let opened = File::options().create(true).append(true).open(path);
                Box::new(opened.map_err(|error| format!("cannot open the log file {}: {error}", path.display()))?)
            }
        };
        let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self(Arc::new(Shared { options, instance, out: Mutex::new(out) })))
    }

    /// Makes this the place where the events of the whole process go. Call it once, in `main`.
    pub(crate) fn install(&self) {
        let level = self.0.options.level.filter();
        // What libraries say is of interest only when something is wrong with them.
        let others = level.min(LevelFilter::WARN);
        let targets = Targets::new().with_default(others).with_targets([("trilby", level), ("cli", level)]);
        tracing_subscriber::registry().with(Layer::new(self.clone()).with_filter(targets)).init();
    }

    /// The least important level that is logged.
    #[must_use]
    pub(crate) fn level(&self) -> Level {
        self.0.options.level
    }

    /// Logs the error that ends the process.
    pub(crate) fn fatal(&self, message: &str) {
        self.write(&Line {
            level: Level::Fatal,
            app_id: None,
            scope: "dapr.runtime",
            message,
            fields: &[],
            source: Source::Runtime,
        });
    }

    /// Logs a line that an app printed, as it is.
    pub(crate) fn printed(&self, app_id: &str, stream: &'static str, text: &str) {
        let level = Level::Info;
        if level >= self.0.options.level {
            let (app_id, source) = (Some(app_id), Source::App);
            self.write(&Line { level, app_id, scope: stream, message: text, fields: &[], source });
        }
    }

    fn write(&self, line: &Line<'_>) {
        let Shared { options, instance, out } = &*self.0;
        let text = line.render(options.format, &options.app_id, instance);
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written has nowhere to say so.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
