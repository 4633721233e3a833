//! The threads that run SQLite. It is synchronous, and an async thread must not wait for a disk.
//!
//! One thread owns the connection that writes. Whatever waits for it goes into one transaction, since a commit waits
//! for the disk however little it holds; each write is answered after the commit that holds it. Readers have threads
//! and connections of their own, which in WAL mode neither block the writer nor wait for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{
    failure,
    queue::{Closed, Next, Queue},
};

/// The most writes in one commit; it bounds how long the first of them waits for the others.
const LARGEST_BATCH: usize = 256;

type Read = Box<dyn FnOnce(&Connection) + Send>;
type Apply = Box<dyn FnOnce(&Connection) -> Result<()> + Send>;

struct Write {
    apply: Apply,
    done: oneshot::Sender<Result<()>>,
}

enum Job {
    Read(Read),
    Write(Write),
}

/// Work that the writing thread does by itself from time to time.
pub(super) struct Chore {
    pub(super) every: Duration,
    pub(super) run: Box<dyn FnMut(&Connection) + Send>,
}

pub(super) struct Executor {
    reads: Arc<Queue<Job>>,
    writes: Arc<Queue<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    timeout: Duration,
}

impl Executor {
    /// Starts one thread for `writer` and one for each of `readers`; without readers, the writer reads too.
    ///
    /// A call waits for its answer no longer than `timeout`.
    pub(super) fn start(
        writer: Connection,
        readers: Vec<Connection>,
        chore: Option<Chore>,
        timeout: Duration,
    ) -> Result<Self> {
        let writes = Arc::new(Queue::new());
        let reads = if readers.is_empty() { Arc::clone(&writes) } else { Arc::new(Queue::new()) };
        // The executor exists before its threads: should one fail to start, dropping it ends the others.
        let executor = Self { reads, writes, threads: Mutex::default(), timeout };
        let queue = Arc::clone(&executor.writes);
        executor.spawn("sqlite-write", move || serve(&writer, &queue, chore))?;
        for reader in readers {
            let queue = Arc::clone(&executor.reads);
            executor.spawn("sqlite-read", move || serve(&reader, &queue, None))?;
        }
        Ok(executor)
    }

    /// Runs `query` on a reading thread. A query that nobody waits for any more is not begun.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            if !done.is_closed() {
                let _ = done.send(query(connection));
            }
        });
        self.run(&self.reads, Job::Read(read), answer).await
    }

    /// Runs `apply` on the writing thread, within a transaction that it may share with others. When it fails it must
    /// have changed nothing.
    pub(super) async fn write(&self, apply: impl FnOnce(&Connection) -> Result<()> + Send + 'static) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.run(&self.writes, Job::Write(Write { apply: Box::new(apply), done }), answer).await
    }

    /// Does what waits and ends the threads.
    pub(super) async fn close(&self) {
        let threads = self.stop();
        let joined = tokio::task::spawn_blocking(|| join(threads)).await;
        if let Err(error) = joined {
            tracing::warn!(%error, "the SQLite threads were not waited for");
        }
    }

    async fn run<T>(&self, queue: &Queue<Job>, job: Job, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let answered = tokio::time::timeout(self.timeout, async {
            queue.push(job).await.map_err(|Closed| closed())?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        });
        answered.await.unwrap_or_else(|_| {
            let message = format!("SQLite did not answer within {:?}; see the metadata timeout", self.timeout);
            Err(ComponentError::new(ErrorKind::Timeout, message))
        })
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| {
            ComponentError::new(ErrorKind::Internal, format!("cannot start a thread for SQLite: {error}"))
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn stop(&self) -> Vec<JoinHandle<()>> {
        self.reads.close();
        self.writes.close();
        std::mem::take(&mut self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        join(self.stop());
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a SQLite thread panicked");
        }
    }
}

fn closed() -> ComponentError {
    ComponentError::new(ErrorKind::Unavailable, "the SQLite store is closed")
}

/// What each thread does until the queue is closed and empty.
fn serve(connection: &Connection, queue: &Queue<Job>, mut chore: Option<Chore>) {
    let next_time = |chore: &Option<Chore>| chore.as_ref().and_then(|chore| Instant::now().checked_add(chore.every));
    let mut due = next_time(&chore);
    loop {
        match queue.pop(due) {
            Next::Job(Job::Read(read)) => read(connection),
            Next::Job(Job::Write(first)) => commit(connection, first, queue),
            Next::Due => {
                if let Some(chore) = &mut chore {
                    (chore.run)(connection);
                }
                due = next_time(&chore);
            }
            Next::Closed => return,
        }
    }
}

/// Commits `first` and the writes that wait behind it, and answers them all.
fn commit(connection: &Connection, first: Write, queue: &Queue<Job>) {
    let mut batch = vec![first];
    while batch.len() < LARGEST_BATCH
        && let Some(Job::Write(next)) = queue.pop_if(|job| matches!(job, Job::Write(_)))
    {
        batch.push(next);
    }
    batch.retain(|write| !write.done.is_closed());

    let (changes, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|write| (write.apply, write.done)).unzip();
    match apply_all(connection, changes) {
        Ok(results) => callers.into_iter().zip(results).for_each(|(done, result)| drop(done.send(result))),
        Err(error) => {
            for done in callers {
                let _ = done.send(Err(ComponentError::new(error.kind(), error.to_string())));
            }
        }
    }
}

/// Applies the changes in one transaction: the outcome of each, or the reason why none was committed.
fn apply_all(connection: &Connection, changes: Vec<Apply>) -> Result<Vec<Result<()>>> {
    // Immediate: to begin reading and to upgrade later could fail on what another process wrote in between.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failure)?;
    let mut results = Vec::with_capacity(changes.len());
    for apply in changes {
        let result = apply(connection);
        // A full disk, for example, ends the transaction, and takes along what others put into it.
        if connection.is_autocommit() {
            let unknown = || ComponentError::new(ErrorKind::Internal, "SQLite rolled the transaction back");
            return Err(result.err().unwrap_or_else(unknown));
        }
        results.push(result);
    }
    transaction.commit().map_err(failure)?;
    Ok(results)
}
