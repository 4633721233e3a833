//! A server process that cannot outlive us, however we end.
//!
//! A shell stands between: it starts the server, and stops it when its own stdin closes, which the system does for us
//! even when we are killed. It has a process group of its own, so that ctrl-c leaves it alone and it is still there to
//! do so.

use std::{
    env, fs,
    fs::File,
    io::{Read, Seek},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    process::{Result, at},
    workspace::Workspace,
};

/// Arguments: the signal that ends the server, the folder to remove afterwards, the server's command line.
const SUPERVISOR: &str = r#"
signal=$1 home=$2
shift 2
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{
    read -r _ <&3
    kill -"$signal" "$server"
    for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; kill -0 "$server" || exit; done
    kill -KILL "$server"
} 2>/dev/null &
watcher=$!
wait "$server"
status=$?
kill -KILL "$watcher"
rm -rf -- "$home" 2>/dev/null
exit "$status"
"#;

/// An account to run a server as.
#[derive(Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The first of `names` that this machine has.
    pub(super) fn first_of(names: &[&str]) -> Option<Self> {
        let accounts = fs::read_to_string("/etc/passwd").ok()?;
        names.iter().find_map(|name| {
            let fields: Vec<_> =
                accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == *name)?;
            Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
        })
    }
}

/// The folder of one server: its data, and its log beside it. Removed on drop.
pub(super) struct Home {
    dir: PathBuf,
    /// Empty, owned by the server's account.
    pub(super) data: PathBuf,
    /// Kept open: it can be read even when the shell has removed the folder.
    log: File,
    account: Option<Account>,
}

impl Home {
    /// In the target folder; in the system's folder for temporary files if `account` cannot get at that.
    ///
    /// # Errors
    /// The folder cannot be made or given away.
    pub(super) fn new(workspace: &Workspace, name: &str, account: Option<Account>) -> Result<Self> {
        let services = workspace.services();
        fs::create_dir_all(&services).map_err(at(&services))?;
        let id = process::id();
        let dir = match account {
            Some(_) if !open_to_all(&services) => env::temp_dir().join(format!("trilby-{name}-{id}")),
            _ => services.join(format!("{name}-{id}")),
        };
        // Left by a process with our id that was killed; containers start counting anew.
        let _ = fs::remove_dir_all(&dir);
        let data = dir.join("data");
        // Not `create_dir_all`: in a folder that all can write to, what is there already is somebody else's.
        for path in [&dir, &data] {
            fs::create_dir(path).map_err(at(path))?;
            if let Some(Account { uid, gid }) = account {
                chown(path, Some(uid), Some(gid)).map_err(at(path))?;
            }
        }
        // PostgreSQL wants its data to be nobody else's business.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).map_err(at(&data))?;
        let log = dir.join("log");
        let log = File::options().create_new(true).read(true).append(true).open(&log).map_err(at(&log))?;
        Ok(Self { dir, data, log, account })
    }

    /// Puts a file that only the server's account may read beside the data, and says where.
    ///
    /// # Errors
    /// It cannot be written or given away.
    pub(super) fn give(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, content).map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
        if let Some(Account { uid, gid }) = self.account {
            chown(&path, Some(uid), Some(gid)).map_err(at(&path))?;
        }
        Ok(path)
    }

    /// Makes `command` run in the data folder, as the server's account, with its stdout and stderr in the log.
    ///
    /// # Errors
    /// No file handle is left.
    pub(super) fn prepare(&self, command: &mut Command) -> Result {
        command.current_dir(&self.data).stdout(self.log.try_clone()?).stderr(self.log.try_clone()?);
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        Ok(())
    }

    /// The last lines of the log, for an error message.
    pub(super) fn end_of_log(&self) -> String {
        let mut log = Vec::new();
        let mut file = &self.log;
        // A log that cannot be read leaves the message without its end, no more.
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut log));
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Nothing to be done about it, and nothing but disk space at stake.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A server and the shell that watches it.
pub(super) struct Supervised {
    shell: Child,
    home: Home,
}

impl Supervised {
    /// Starts `server` in `home`; `signal` is what ends it quickly and cleanly, by its name without `SIG`.
    ///
    /// # Errors
    /// There is no shell, or the log cannot be written.
    pub(super) fn start(server: Command, home: Home, signal: &str) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISOR, "sh", signal]).arg(&home.dir).arg(server.get_program()).args(server.get_args());
        shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::piped()).process_group(0);
        home.prepare(&mut shell)?;
        Ok(Self { shell: shell.spawn()?, home })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The server ends first, or is not ready within `limit`.
    pub(super) fn wait_until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result {
        let started = Instant::now();
        while !ready() {
            self.check()?;
            if started.elapsed() > limit {
                return Err(format!("not ready within {} s: {}", limit.as_secs(), self.home.end_of_log()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// # Errors
    /// The server has ended.
    pub(super) fn check(&mut self) -> Result {
        match self.shell.try_wait()? {
            Some(status) => Err(format!("ended with {status}: {}", self.home.end_of_log()).into()),
            None => Ok(()),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // The shell always ends: it kills a server that does not stop. An error means that it is gone already.
        let _ = self.shell.wait();
    }
}

/// Whether every account may pass through to `dir`.
fn open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|part| fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0))
}
