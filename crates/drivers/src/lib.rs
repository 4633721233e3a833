//! What the programs behind `cargo xtask demo` and `cargo xtask bench` share: a look at a running process from outside.

use std::{fs, time::Duration};

/// A failure, as a sentence for whoever watches.
pub type Result<T, E = String> = std::result::Result<T, E>;

/// Resident memory of a process in KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.ok_or_else(|| format!("{path} has no VmRSS"))
}

/// Processor time that a process has used, all threads together, in steps of 10 ms.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    /// Linux reports in these units whatever the kernel's own tick.
    const TICKS_PER_SECOND: u64 = 100;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // Counted after the command's name, which may hold spaces: user and system time are the 12th and 13th field.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else { return Err(format!("{path} has no times")) };
    Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}
