//! A server process that cannot outlive us, however we end.
//!
//! A shell stands between: it starts the server, and stops it when its own stdin closes, which the system does for us even when
//! we are killed. It ignores ctrl-c and has a process group of its own, so that it is still there to do so.

use std::{
    env, fs,
    fs::File,
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
trap '' HUP INT TERM
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

    /// Makes `command` run as this account.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// The folder of one server: its data, and its log beside it. Removed on drop.
pub(super) struct Home {
    dir: PathBuf,
    /// Empty, owned by the server's account.
    pub(super) data: PathBuf,
    /// Kept open: it can be read even when the shell has removed the folder.
    log: File,
    pub(super) account: Option<Account>,
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
        let home = Self { data: dir.join("data"), log: dir.join("log"), dir, account };
        // Left by a process with our id that was killed; containers start counting anew.
        let _ = fs::remove_dir_all(&home.dir);
        // Not `create_dir_all`: in a folder that all can write to, what is there already is somebody else's.
        for path in [&home.dir, &home.data] {
            fs::create_dir(path).map_err(at(path))?;
        }
        fs::set_permissions(&home.data, fs::Permissions::from_mode(0o700)).map_err(at(&home.data))?;
        if let Some(Account { uid, gid }) = account {
            for path in [&home.dir, &home.data] {
                chown(path, Some(uid), Some(gid)).map_err(at(path))?;
            }
        }
        Ok(home)
    }

    /// For the stdout and stderr of `command`, which runs in the data folder as the server's account.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(super) fn prepare(&self, command: &mut Command) -> Result {
        let log = File::options().create(true).append(true).open(&self.log).map_err(at(&self.log))?;
        command.current_dir(&self.data).stdout(log.try_clone()?).stderr(log);
        if let Some(account) = self.account {
            account.apply(command);
        }
        Ok(())
    }

    /// The last lines of the log, for an error message.
    pub(super) fn end_of_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
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
