//! Counts the sockets that the process opens while it works, by looking: every millisecond its open files are listed,
//! and each socket among them is looked up in the kernel's table of connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::Result;

/// How often the process is looked at.
const INTERVAL: Duration = Duration::from_millis(1);

/// What was seen.
pub(crate) struct Count {
    /// How often it was looked.
    pub(crate) looks: u32,
    /// Connections of the storefront's own HTTP port.
    pub(crate) http: usize,
    /// Sockets of any other kind that were not there before.
    pub(crate) other: usize,
}

/// A look-out on one process.
pub(crate) struct Watch {
    done: Arc<AtomicBool>,
    watching: JoinHandle<Count>,
}

impl Watch {
    /// Starts looking. Sockets that are open already are not counted.
    pub(crate) fn start(pid: u32, port: u16) -> Result<Self> {
        let known = sockets(pid)?;
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let watching = thread::spawn(move || {
            let mut ports = BTreeMap::new();
            let mut seen = BTreeSet::new();
            let mut looks = 0;
            while !flag.load(Ordering::Relaxed) {
                let new: Vec<_> = sockets(pid).unwrap_or_default().difference(&known).copied().collect();
                if new.iter().any(|inode| !ports.contains_key(inode)) {
                    ports.extend(tcp_ports(pid));
                }
                seen.extend(new);
                looks += 1;
                thread::sleep(INTERVAL);
            }
            let http = seen.iter().filter(|inode| ports.get(inode) == Some(&port)).count();
            Count { looks, http, other: seen.len() - http }
        });
        Ok(Self { done, watching })
    }

    /// Stops looking.
    pub(crate) fn finish(self) -> Result<Count> {
        self.done.store(true, Ordering::Relaxed);
        self.watching.join().map_err(|_| "the look-out failed".to_owned())
    }
}

/// Inodes of the sockets that the process has open.
fn sockets(pid: u32) -> Result<BTreeSet<u64>> {
    let folder = format!("/proc/{pid}/fd");
    let files = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Ok(files.flatten().filter_map(inode).collect())
}

/// Local ports of TCP sockets by inode, listeners and connections alike.
fn tcp_ports(pid: u32) -> BTreeMap<u64, u16> {
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let row = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let port = columns.get(1)?.rsplit(':').next()?;
        Some((columns.get(9)?.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(row).collect()
}
