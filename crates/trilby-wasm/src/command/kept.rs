//! The output of a run that keeps it, up to a limit.

use wasmtime_wasi::WasiCtxBuilder;

use super::Finished;
use crate::limits::Exceeded;
use crate::wasi::{Output, Write};

/// Both streams of a run.
pub(super) struct Kept {
    stdout: Output<Bounded>,
    stderr: Output<Bounded>,
}

/// One stream.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    /// Whether the program is ended when there is more, and not just its output cut.
    ends: bool,
    is_cut: bool,
}

impl Bounded {
    /// What is beyond the limit is dropped.
    pub(super) fn cut(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, ends: false, is_cut: false }
    }

    /// What is beyond the limit ends the program.
    pub(super) fn ended(limit: usize) -> Self {
        Self { ends: true, ..Self::cut(limit) }
    }
}

impl Kept {
    pub(super) fn attach(wasi: &mut WasiCtxBuilder, stdout: Bounded, stderr: Bounded) -> Self {
        let kept = Self { stdout: Output::new(stdout), stderr: Output::new(stderr) };
        wasi.stdout(kept.stdout.clone()).stderr(kept.stderr.clone());
        kept
    }

    pub(super) fn fill(&self, finished: Finished) -> Finished {
        let (mut stdout, mut stderr) = (self.stdout.lock(), self.stderr.lock());
        Finished {
            is_cut: stdout.is_cut || stderr.is_cut,
            stdout: std::mem::take(&mut stdout.bytes).into(),
            stderr: std::mem::take(&mut stderr.bytes).into(),
            ..finished
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Exceeded> {
        let fits = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fits]);
        self.is_cut |= fits < bytes.len();
        if self.ends && self.is_cut { Err(Exceeded::Output { limit: self.limit }) } else { Ok(()) }
    }
}
