//! A command that runs beside its doors, in a process group of its own, so that it can be ended with all that it starts.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Child,
    task::JoinSet,
    time::timeout,
};

use super::plan::Command;
use crate::log::Log;

/// Longest line of output in bytes. A longer one is broken into several.
const LINE_BYTES: usize = 64 << 10;
/// How long output is waited for when its command has ended; a process that it left behind may hold it open for ever.
const OUTPUT_TIME: Duration = Duration::from_millis(200);

/// A command that was started. Killed with its group when dropped.
pub(super) struct Process {
    pub app_id: String,
    child: Child,
    group: Pid,
    output: JoinSet<()>,
}

impl Process {
    /// Starts a command; `env` comes on top of this process's own variables, and under the command's.
    ///
    /// # Errors
    /// If there is no such program or folder, in words that name it.
    pub(super) fn start(app_id: &str, command: &Command, env: Vec<(&str, String)>, log: &Log) -> Result<Self, String> {
        let (program, args) =
            command.words.split_first().ok_or_else(|| format!("app {app_id}: the command is empty"))?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .current_dir(&command.folder)
            .envs(env)
            .envs(&command.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("app {app_id}: cannot run {program} in {}: {error}", command.folder.display()))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = id.ok_or_else(|| format!("app {app_id}: {program} ended at once"))?;
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(copy(stdout, "app.stdout", app_id.to_owned(), log.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(copy(stderr, "app.stderr", app_id.to_owned(), log.clone()));
        }
        Ok(Self { app_id: app_id.to_owned(), child, group, output })
    }

    /// Waits until it ends by itself. Dropping the future leaves it running.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.wait().await.ok();
        let drained = async { while self.output.join_next().await.is_some() {} };
        timeout(OUTPUT_TIME, drained).await.ok();
        status
    }

    /// Asks it to end, and makes it when it does not within `grace`.
    pub(super) async fn stop(mut self, grace: Duration) {
        // It may have ended already: then there is nobody to ask.
        kill_process_group(self.group, Signal::TERM).ok();
        if timeout(grace, self.ended()).await.is_err() {
            tracing::warn!(app_id = self.app_id, ?grace, "command did not end in time and is killed");
            kill_process_group(self.group, Signal::KILL).ok();
            self.ended().await;
        }
    }
}

impl Drop for Process {
    /// What the command started may outlive it.
    fn drop(&mut self) {
        kill_process_group(self.group, Signal::KILL).ok();
    }
}

/// Logs what a command prints, line by line.
async fn copy(stream: impl AsyncRead + Unpin, name: &'static str, app_id: String, log: Log) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(chunk) = stream.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1).min(LINE_BYTES - line.len());
        line.extend_from_slice(&chunk[..taken]);
        stream.consume(taken);
        if line.ends_with(b"\n") || line.len() == LINE_BYTES {
            print(&line, name, &app_id, &log);
            line.clear();
        }
    }
    if !line.is_empty() {
        print(&line, name, &app_id, &log);
    }
}

fn print(line: &[u8], name: &'static str, app_id: &str, log: &Log) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    log.printed(app_id, name, &String::from_utf8_lossy(line));
}
