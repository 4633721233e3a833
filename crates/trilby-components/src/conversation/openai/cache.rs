//! Answers to questions that were asked before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use trilby_component::conversation::Response;

/// The most answers that are kept; then the oldest goes.
const MAX_ANSWERS: usize = 1000;

/// Answers by their question, each for as long as the others.
pub(super) struct Cache {
    life: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<Bytes, (Instant, Response)>,
    /// Questions in the order in which their answers die.
    order: VecDeque<(Instant, Bytes)>,
}

impl Cache {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, kept: Mutex::default() }
    }

    pub(super) fn get(&self, question: &Bytes) -> Option<Response> {
        let kept = self.kept();
        let (asked, answer) = kept.answers.get(question)?;
        (asked.elapsed() < self.life).then(|| answer.clone())
    }

    pub(super) fn put(&self, question: Bytes, answer: Response) {
        let now = Instant::now();
        let mut kept = self.kept();
        let Kept { answers, order } = &mut *kept;
        while order.len() >= MAX_ANSWERS || order.front().is_some_and(|(asked, _)| now - *asked >= self.life) {
            let Some((asked, oldest)) = order.pop_front() else { break };
            // It may have been asked again meanwhile.
            if answers.get(&oldest).is_some_and(|(last, _)| *last == asked) {
                answers.remove(&oldest);
            }
        }
        answers.insert(question.clone(), (now, answer));
        order.push_back((now, question));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_its_life_and_while_there_is_room() {
        let cache = Cache::new(Duration::from_secs(60));
        let question = |number: usize| Bytes::from(number.to_string());
        for number in 0..=MAX_ANSWERS {
            cache.put(question(number), Response::default());
        }
        assert!(cache.get(&question(0)).is_none(), "the oldest made room");
        assert!(cache.get(&question(1)).is_some() && cache.get(&question(MAX_ANSWERS)).is_some());
        let short = Cache::new(Duration::from_millis(1));
        short.put(question(0), Response::default());
        std::thread::sleep(Duration::from_millis(5));
        assert!(short.get(&question(0)).is_none());
        short.put(question(1), Response::default());
        assert_eq!(short.kept().answers.len(), 1, "the dead one is gone");
    }
}
