//! What a guest may use, and the meter that holds it to that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use crate::lane::Pace;

/// Limits of one app. Every field has a default that suits a service; set what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory one instance may have, over all its memories. At most 4 GiB. Default 256 MiB.
    pub memory_bytes: usize,
    /// Elements one table may have. Default 100,000, which is also what the pooling allocator has room for.
    pub table_elements: usize,
    /// Core instances one component instance may consist of. Default 100.
    pub core_instances: usize,
    /// Host resources (streams, requests, files, …) one instance may hold at a time. Default 10,000.
    pub resources: usize,
    /// Longest time one call may take, waiting included, queueing not. Zero means no limit. Default 30 s.
    pub call_timeout: Duration,
    /// Calls after which an instance is replaced, so that what it leaks goes away. Zero means never. Default 10,000.
    pub max_calls_per_instance: u32,
    /// Calls that run at a time; each has an instance of its own. At least 1. Default 64.
    pub max_concurrency: u32,
    /// Calls that may wait for their turn, first come first served. Default 1,024.
    pub max_queue: u32,
    /// Longest wait for a turn. Default 10 s.
    pub max_wait: Duration,
    /// Instances kept ready when there is nothing to do. Default 1.
    pub idle_instances: u32,
    /// How long an instance beyond `idle_instances` is kept unused. Default 10 s.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            table_elements: 100_000,
            core_instances: 100,
            resources: 10_000,
            call_timeout: Duration::from_secs(30),
            max_calls_per_instance: 10_000,
            max_concurrency: 64,
            max_queue: 1024,
            max_wait: Duration::from_secs(10),
            idle_instances: 1,
            idle_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// An empty table for the host resources of one instance.
    pub fn resource_table(&self) -> ResourceTable {
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.resources);
        table
    }
}

/// A limit that a guest ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Linear memory: bytes wanted in all, and `memory_bytes`.
    Memory { wanted: usize, limit: usize },
    /// One table: elements wanted, and `table_elements`.
    Table { wanted: usize, limit: usize },
    /// Standard output of a command: the bytes that it may write.
    Output { limit: usize },
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { wanted, limit } => {
                write!(f, "guest ran out of memory: it wanted {wanted} bytes and the limit is {limit} (memory_bytes)")
            }
            Self::Output { limit } => {
                write!(f, "program wrote more than {limit} bytes, the limit, to its standard output")
            }
            Self::Table { wanted, limit } => {
                write!(
                    f,
                    "guest ran out of table space: it wanted {wanted} elements and the limit is {limit} (table_elements)"
                )
            }
        }
    }
}

/// What a store's data must offer so that its guest can be limited and scheduled.
pub trait HostState: Send + 'static {
    /// The meter made for this store.
    fn meter(&mut self) -> &mut Meter;
}

/// Counts what one store uses. Refuses what is beyond the limits and remembers what it refused.
#[derive(Debug)]
pub struct Meter {
    memory_limit: usize,
    table_limit: usize,
    instance_limit: usize,
    memory_bytes: usize,
    exceeded: Option<Exceeded>,
    pace: Arc<Pace>,
    counted: Option<Counted>,
}

/// What the store adds to the sums of its app, for as long as it lives.
#[derive(Debug)]
struct Counted {
    stores: Arc<AtomicU32>,
    memory_bytes: Arc<AtomicUsize>,
}

impl Meter {
    /// A meter for one new store.
    pub fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory_bytes,
            table_limit: limits.table_elements,
            instance_limit: limits.core_instances,
            memory_bytes: 0,
            exceeded: None,
            pace: Arc::default(),
            counted: None,
        }
    }

    /// Bytes of linear memory the guest has now.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The last limit that was refused, if one was since [`forgive`](Self::forgive).
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded
    }

    /// Forgets refusals. For the start of a call: a guest may survive a refusal, and it says nothing about later calls.
    pub fn forgive(&mut self) {
        self.exceeded = None;
    }

    /// Counts this store and its memory into the sums of an app. For a new store, before it has memory.
    pub(crate) fn count_into(&mut self, stores: Arc<AtomicU32>, memory_bytes: Arc<AtomicUsize>) {
        stores.fetch_add(1, Ordering::Relaxed);
        self.counted = Some(Counted { stores, memory_bytes });
    }

    /// How long the guest of this store has run without a pause.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(counted) = &self.counted {
            counted.stores.fetch_sub(1, Ordering::Relaxed);
            counted.memory_bytes.fetch_sub(self.memory_bytes, Ordering::Relaxed);
        }
    }
}

impl ResourceLimiter for Meter {
    /// A growth that is granted here and then fails in the system stays counted: rare, and on the safe side.
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_limit {
            self.exceeded = Some(Exceeded::Memory { wanted, limit: self.memory_limit });
            return Ok(false);
        }
        // What the module declared as its own maximum is not ours to report.
        let fits = maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            if let Some(counted) = &self.counted {
                counted.memory_bytes.fetch_add(wanted - self.memory_bytes, Ordering::Relaxed);
            }
            self.memory_bytes = wanted;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.table_limit {
            self.exceeded = Some(Exceeded::Table { wanted: desired, limit: self.table_limit });
            return Ok(false);
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        self.instance_limit
    }
}
