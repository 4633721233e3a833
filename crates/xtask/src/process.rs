//! Running other programs, and saying so: every step is announced with its time, every failure names its command.

use std::{
    env,
    error::Error,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Anything that ends a chore; its text is for the person at the terminal.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Announces `what`, does it, and tells how long it took. All on stderr: stdout is for results.
///
/// # Errors
/// Those of `work`.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let started = Instant::now();
    let done = work();
    let outcome = if done.is_ok() { "done" } else { "failed" };
    eprintln!("    {outcome}: {what} ({:.1} s)", started.elapsed().as_secs_f64());
    done
}

/// Runs `command` to its end, with its stdout on our stderr.
///
/// # Errors
/// It cannot be started, or says that it failed.
pub(crate) fn run(command: &mut Command) -> Result {
    let status = command.stdout(io::stderr()).status().map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed: {status}", line(command)).into())
}

/// As [`run`], but ends the program after `limit`.
///
/// # Errors
/// As [`run`], and when the limit is reached.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result {
    let mut child = command.stdout(io::stderr()).spawn().map_err(|error| not_started(command, &error))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", line(command)).into()) };
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(format!("`{}` took longer than {} s", line(command), limit.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What `command` prints, without white space at the end.
///
/// # Errors
/// It cannot be started, or fails: then the last line of its stderr is part of the message.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or_default();
        return Err(format!("`{}` failed: {}: {last}", line(command), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The first executable called `name` on PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// For `map_err` on file operations, whose own errors do not say which file.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

fn not_started(command: &Command, error: &io::Error) -> String {
    format!("cannot run `{}`: {error}", command.get_program().to_string_lossy())
}

fn line(command: &Command) -> String {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
