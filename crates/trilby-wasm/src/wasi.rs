//! The base of WASI that every guest gets: clocks, random numbers, output that becomes log lines, and what was granted.

mod deterministic;
mod hosts;
mod logs;
mod output;

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

pub use self::hosts::{AllowedHosts, HostPattern, InvalidHost};
pub use self::logs::{LogSink, Logs, Stream};
pub(crate) use self::output::{Output, Write};

/// What a guest may see of the world. The default is nothing: no variable, argument, file or address.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Folders.
    pub dirs: Vec<Directory>,
    /// Hosts it may connect to, by HTTP and by sockets.
    pub hosts: Arc<AllowedHosts>,
    /// Whether clocks move only when they are read, and random numbers are always the same. Default false.
    pub deterministic: bool,
}

/// A folder of this machine that a guest may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The folder here.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    /// Whether the guest may change what is in it.
    pub writable: bool,
}

impl Grants {
    /// A context with what is granted, whose output goes to `logs`.
    ///
    /// # Errors
    ///
    /// If a granted folder cannot be opened.
    pub fn context(&self, logs: &Logs) -> wasmtime::Result<WasiCtx> {
        let mut builder = self.builder()?;
        builder.stdout(logs.stream(Stream::Stdout)).stderr(logs.stream(Stream::Stderr));
        Ok(builder.build())
    }

    /// A context with what is granted, for whoever wants to say more.
    ///
    /// # Errors
    ///
    /// If a granted folder cannot be opened.
    pub fn builder(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtx::builder();
        builder.envs(&self.env).args(&self.args);
        for dir in &self.dirs {
            let perms = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            builder
                .preopened_dir(&dir.host, &dir.guest, perms)
                .map_err(|error| error.context(format!("cannot open the granted folder {}", dir.host.display())))?;
        }
        if self.deterministic {
            deterministic::apply(&mut builder);
        }
        if !self.hosts.is_empty() {
            let hosts = self.hosts.clone();
            builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
            builder.socket_addr_check(move |addr, used_for| {
                let hosts = hosts.clone();
                Box::pin(async move { hosts.allows_socket(addr, used_for).await })
            });
        }
        Ok(builder)
    }
}
