//! How much memory a process has.

/// Resident memory in bytes, or `None` and a NOT RUN line where the system does not tell.
pub(crate) fn resident(pid: u32) -> Option<usize> {
    let found = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    if found.is_none() {
        println!("NOT RUN bounds of resident memory: this system has no /proc/PID/status");
    }
    found.map(|kilobytes| kilobytes << 10)
}
