//! What guests print, as log lines of their app: bounded in length and in number.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::output::{Output, Write};
use crate::limits::Exceeded;

/// Longest line in bytes. A longer one is broken into several.
const LINE_BYTES: usize = 8 << 10;

/// What an app may print per second, in lines. Long lines count for more: one per so many bytes.
const LINES_PER_SECOND: u64 = 1000;
const BYTES_PER_LINE: usize = 256;

/// What an app may print at once after a pause.
const BURST: u64 = 2000;

/// Which of its two outputs a guest printed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where log lines go.
pub trait LogSink: Send + Sync + 'static {
    /// Takes a line, without its end. Called on the thread that runs the guest: must not block.
    fn line(&self, stream: Stream, line: &str);
}

/// The log of one app: all its instances print here. Cheap to clone.
///
/// An app may print 1,000 lines a second, and 2,000 at once. What is beyond that is dropped, and the log says how much.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

struct Shared {
    sink: Box<dyn LogSink>,
    gate: Mutex<Gate>,
}

impl Logs {
    /// A log that goes to `sink`.
    pub fn new(sink: impl LogSink) -> Self {
        Self(Arc::new(Shared { sink: Box::new(sink), gate: Mutex::new(Gate::new(Instant::now())) }))
    }

    /// The output of one instance.
    pub(crate) fn stream(&self, stream: Stream) -> Output<Lines> {
        Output::new(Lines { logs: self.clone(), stream, line: Vec::new() })
    }

    /// Logs a line, if the app has not printed too much.
    pub fn line(&self, stream: Stream, line: &str) {
        let admitted =
            self.0.gate.lock().expect("no code that holds this lock panics").admit(line.len(), Instant::now());
        let Some(dropped) = admitted else { return };
        if dropped > 0 {
            self.0
                .sink
                .line(stream, &format!("({dropped} lines dropped: more than {LINES_PER_SECOND} lines a second)"));
        }
        self.0.sink.line(stream, line);
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

/// Breaks output into lines.
pub(crate) struct Lines {
    logs: Logs,
    stream: Stream,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Exceeded> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            for piece in text.chunks(LINE_BYTES) {
                if self.line.len() + piece.len() > LINE_BYTES {
                    self.end_line();
                }
                self.line.extend_from_slice(piece);
            }
            if ends {
                self.end_line();
            }
        }
        Ok(())
    }
}

impl Lines {
    fn end_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        self.logs.line(self.stream, &String::from_utf8_lossy(line));
        self.line.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

/// A token bucket.
struct Gate {
    tokens: u64,
    filled: Instant,
    dropped: u64,
}

impl Gate {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, dropped: 0 }
    }

    /// Whether a line of this length may pass, and how many before it did not.
    fn admit(&mut self, len: usize, now: Instant) -> Option<u64> {
        let millis = u64::try_from(now.duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(LINES_PER_SECOND) / 1000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.filled = now;
        }
        let price = 1 + (len / BYTES_PER_LINE) as u64;
        if self.tokens < price {
            self.dropped += 1;
            return None;
        }
        self.tokens -= price;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Collect(Arc<Mutex<Vec<String>>>);

    impl LogSink for Collect {
        fn line(&self, _: Stream, line: &str) {
            self.0.lock().expect("not poisoned").push(line.to_owned());
        }
    }

    fn print(parts: &[&[u8]]) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = Logs::new(Collect(lines.clone())).stream(Stream::Stdout);
        parts.iter().for_each(|part| output.lock().write(part).expect("a log takes everything"));
        drop(output);
        std::mem::take(&mut *lines.lock().expect("not poisoned"))
    }

    #[test]
    fn output_becomes_lines() {
        assert_eq!(print(&[b"one\ntwo\r\n", b"th", b"ree\n", b"\n", b"rest"]), ["one", "two", "three", "", "rest"]);
        assert_eq!(print(&[b"\xff\n"]), ["\u{fffd}"]);
        assert!(print(&[]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let lines = print(&[&[b'x'; 3 * LINE_BYTES + 1]]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES, LINE_BYTES, LINE_BYTES, 1]);
    }

    #[test]
    fn too_many_lines_are_counted_not_kept() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let passed = (0..10_000).filter(|_| gate.admit(10, start).is_some()).count() as u64;
        assert_eq!(passed, BURST);
        assert_eq!(gate.admit(10, start + Duration::from_millis(10)), Some(10_000 - BURST));
        let passed = (0..10_000).filter(|_| gate.admit(10, start + Duration::from_millis(10)).is_some()).count();
        assert_eq!(passed, 9);
    }

    #[test]
    fn long_lines_cost_more() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let passed = (0..10_000).filter(|_| gate.admit(LINE_BYTES, start).is_some()).count();
        assert_eq!(passed, 2000 / 33);
    }
}
