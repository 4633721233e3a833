//! Counting what arrives, and what it cost.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::Result;

/// What the guest publishes.
#[derive(Deserialize)]
struct Enriched {
    reading: Reading,
}

#[derive(Deserialize)]
struct Reading {
    /// The sensor.
    of: usize,
    /// Which of its readings, from 0.
    nth: usize,
    /// When it was published, in microseconds since the start.
    sent: u64,
}

/// What has arrived so far.
pub(crate) struct Tally {
    started: Instant,
    expected: usize,
    /// For each sensor, which reading is next.
    next: Vec<usize>,
    latencies_us: Vec<u64>,
    doubled: usize,
    disordered: usize,
}

impl Tally {
    pub(crate) fn new(sensors: usize, expected: usize) -> Self {
        Self {
            started: Instant::now(),
            expected,
            next: vec![0; sensors],
            latencies_us: Vec::with_capacity(expected),
            doubled: 0,
            disordered: 0,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.latencies_us.len() >= self.expected
    }

    /// Takes a message; `false` if it came before.
    pub(crate) fn note(&mut self, data: &[u8]) -> Result<bool> {
        let Enriched { reading } = serde_json::from_slice(data)?;
        let next = self.next.get_mut(reading.of).ok_or("a reading of a sensor that is none")?;
        if reading.nth < *next {
            self.doubled += 1;
            return Ok(false);
        }
        self.disordered += usize::from(reading.nth > *next);
        *next = reading.nth + 1;
        let now = u64::try_from(self.started.elapsed().as_micros())?;
        self.latencies_us.push(now.saturating_sub(reading.sent));
        Ok(true)
    }

    /// # Errors
    /// Something is lost or out of order. What came twice is allowed: delivery is at least once.
    pub(crate) fn verdict(&self) -> Result<()> {
        let lost = self.expected - self.latencies_us.len();
        println!("lost         {lost}, out of order {}, delivered twice {}", self.disordered, self.doubled);
        if lost + self.disordered > 0 {
            return Err("messages were lost or came out of order".into());
        }
        Ok(())
    }
}

/// What the run has cost so far.
pub(crate) struct Costs {
    started: Instant,
    cpu: Duration,
}

/// What a run cost.
pub(crate) struct Report {
    messages: usize,
    took: Duration,
    cpu: Duration,
    p50_us: u64,
    p99_us: u64,
    resident_kib: u64,
}

impl Costs {
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self { started: Instant::now(), cpu: cpu()? })
    }

    pub(crate) fn end(self, tally: &mut Tally) -> Result<Report> {
        let (took, cpu) = (self.started.elapsed(), cpu()? - self.cpu);
        let latencies = &mut tally.latencies_us;
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        let (p50_us, p99_us) = (at(50), at(99));
        Ok(Report { messages: latencies.len(), took, cpu, p50_us, p99_us, resident_kib: resident_kib()? })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |time: Duration| self.messages as f64 / time.as_secs_f64().max(f64::EPSILON);
        writeln!(f, "messages     {} in {:.2} s", self.messages, self.took.as_secs_f64())?;
        writeln!(f, "rate         {:.0} per second, {:.0} per CPU second", rate(self.took), rate(self.cpu))?;
        writeln!(f, "latency      p50 {} us, p99 {} us", self.p50_us, self.p99_us)?;
        write!(f, "memory       {:.1} MiB resident", self.resident_kib as f64 / 1024.0)
    }
}

/// Processor time of this process, user and system.
fn cpu() -> Result<Duration> {
    /// Ticks in a second, the same on every Linux.
    const TICKS: f64 = 100.0;

    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..13).ok_or("/proc/self/stat is short")?.iter().flat_map(|text| text.parse::<u64>()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc/self/status has no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
