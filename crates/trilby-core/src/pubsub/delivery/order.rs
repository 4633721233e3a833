//! Order among events of one key, while those of others pass.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Who waits for the turn of a key, first come first.
type Queue = VecDeque<oneshot::Sender<Turn>>;

/// The keys whose turn somebody has. There are no more entries than events in hand.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Queue>>);

/// The turn of one key. Dropping it passes it on.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    key: String,
    is_passed: bool,
}

impl Turns {
    /// Takes a place in the queue of `key` at the first poll, and waits for the turn.
    pub(super) async fn take(self: &Arc<Self>, key: &str) -> Turn {
        let turn = match self.lock().entry(key.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(Queue::new());
                return Turn { turns: Arc::clone(self), key: key.to_owned(), is_passed: false };
            }
            Entry::Occupied(mut queue) => {
                let (pass, turn) = oneshot::channel();
                queue.get_mut().push_back(pass);
                turn
            }
        };
        turn.await.expect("whoever has the turn passes it on")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_passed {
            return;
        }
        let mut keys = self.turns.lock();
        let mut turn = Self { turns: Arc::clone(&self.turns), key: std::mem::take(&mut self.key), is_passed: false };
        while let Some(next) = keys.get_mut(&turn.key).and_then(VecDeque::pop_front) {
            match next.send(turn) {
                Ok(()) => return,
                // Whoever has stopped waiting is passed over.
                Err(back) => turn = back,
            }
        }
        keys.remove(&turn.key);
        turn.is_passed = true;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_key_is_served_in_order_and_others_at_once() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let mut second = Box::pin(turns.take("a"));
        let mut third = Box::pin(turns.take("a"));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(turns.take("b").now_or_never().expect("free"));
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.now_or_never().expect("its turn");
        drop(second);
        drop(third.now_or_never().expect("its turn"));
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn who_stops_waiting_is_passed_over() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let [mut early, mut late, mut last] = [(); 3].map(|()| Box::pin(turns.take("a")));
        for waiting in [&mut early, &mut late, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(early);
        drop(first);
        // It has the turn and does not know it yet.
        drop(late);
        assert!(last.now_or_never().is_some());
        assert!(turns.lock().is_empty());
    }
}
