//! What every Prometheus client tells about its own process, under the usual names. Linux only; elsewhere it is nothing.

use std::fmt::Write as _;

/// Resident memory and processor time.
pub(super) fn render(text: &mut String) {
    if let Some(bytes) = resident_bytes() {
        let _ = writeln!(text, "# HELP process_resident_memory_bytes Resident memory size in bytes.");
        let _ = writeln!(text, "# TYPE process_resident_memory_bytes gauge");
        let _ = writeln!(text, "process_resident_memory_bytes {bytes}");
    }
    if let Some(seconds) = cpu_seconds() {
        let _ = writeln!(text, "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.");
        let _ = writeln!(text, "# TYPE process_cpu_seconds_total counter");
        let _ = writeln!(text, "process_cpu_seconds_total {seconds}");
    }
}

fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Counted after the command's name, which may hold spaces: user and system time are the 12th and 13th field.
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
