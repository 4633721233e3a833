//! The queue between async callers and the threads that run SQLite: bounded, closable, awaited on one side and
//! blocked on at the other.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Semaphore;

/// How many jobs may wait; further callers wait for a place, in order.
const CAPACITY: usize = 1024;

/// The queue takes no more jobs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What a thread finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Job(T),
    /// The time that the thread asked to be woken at has come.
    Due,
    /// The queue is closed and every job has been taken.
    Closed,
}

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    places: Semaphore,
}

struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false }),
            changed: Condvar::new(),
            places: Semaphore::new(CAPACITY),
        }
    }

    /// Adds a job, waiting for a place.
    pub(super) async fn push(&self, job: T) -> Result<(), Closed> {
        // The job takes the place along; whoever takes the job gives it back.
        self.places.acquire().await.map_err(|_| Closed)?.forget();
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the next job, blocking the thread until there is one, but not beyond `due`.
    pub(super) fn pop(&self, due: Option<Instant>) -> Next<T> {
        let mut state = self.lock();
        loop {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            // What is due comes before jobs: a busy queue must not put it off for ever.
            if left.is_some_and(|left| left.is_zero()) {
                return Next::Due;
            }
            if let Some(job) = state.jobs.pop_front() {
                self.places.add_permits(1);
                return Next::Job(job);
            }
            if state.closed {
                return Next::Closed;
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Takes the next job if there is one and it is `wanted`; never blocks.
    pub(super) fn pop_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let job = self.lock().jobs.pop_front_if(|job| wanted(job))?;
        self.places.add_permits(1);
        Some(job)
    }

    /// Takes no more jobs; those that wait are still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.places.close();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_closed_queue_gives_out_what_waits_and_takes_nothing_more() {
        let queue = Queue::new();
        queue.push(1).await.expect("open");
        queue.close();
        assert_eq!(queue.push(2).await, Err(Closed));
        assert_eq!(queue.pop(None), Next::Job(1));
        assert_eq!(queue.pop(None), Next::Closed);
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_for_a_place() {
        let queue = Arc::new(Queue::new());
        for job in 0..CAPACITY {
            queue.push(job).await.expect("open");
        }
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.push(CAPACITY).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(queue.pop(None), Next::Job(0));
        assert_eq!(waiting.await.expect("not cancelled"), Ok(()));
    }

    #[tokio::test]
    async fn what_is_due_comes_before_jobs() {
        let queue = Queue::new();
        queue.push(1).await.expect("open");
        assert_eq!(queue.pop(Some(Instant::now())), Next::Due);
        assert_eq!(queue.pop(Some(Instant::now() + Duration::from_secs(60))), Next::Job(1));
        assert_eq!(queue.pop(Some(Instant::now() + Duration::from_millis(1))), Next::Due);
    }

    #[tokio::test]
    async fn a_job_that_is_not_wanted_stays_first() {
        let queue = Queue::new();
        queue.push(1).await.expect("open");
        queue.push(2).await.expect("open");
        assert_eq!(queue.pop_if(|job| *job == 2), None);
        assert_eq!(queue.pop_if(|job| *job == 1), Some(1));
        assert_eq!(queue.pop(None), Next::Job(2));
    }
}
