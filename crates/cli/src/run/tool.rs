//! A Wasm program that is no app but a command: it runs once, from its beginning to its exit code.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use trilby::{Engine, WasmSettings};
use trilby_wasm::{
    AllowedHosts, Capture, Command, Directory, Finished, Grants, HostPattern, Invocation, Kind, Limits, LogSink, Logs,
    Program, Source, Stream,
};

use super::{args::Plan, plan};
use crate::log::Log;
