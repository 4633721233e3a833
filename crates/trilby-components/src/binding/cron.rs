//! `bindings.cron`: events by the clock.
//!
//! An event has no data; its metadata say when it happened (`readTimeUTC`) and which zone the schedule is in (`timeZone`,
//! always `Local`, as in Dapr). A schedule that comes while too many of its events are still being handled is left out.

mod schedule;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Result,
    binding::{Binding, Event, InputBinding, Reading, Sink},
};

use schedule::{Calendar, Schedule};

/// Events of one binding that may be under way at a time.
const MAX_RUNNING: usize = 64;
/// How long to sleep at most before looking at the clock again, which people and servers set.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    /// Five or six fields (the first may be seconds), a word such as `@hourly`, or `@every 10s`. Required.
    schedule: String,
}

/// Reads the schedule.
///
/// # Errors
/// `InvalidMetadata` if there is none, it does not parse, or its time never comes.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let Config { schedule: text } = request.properties.parse()?;
    if text.is_empty() {
        return Err(ComponentError::metadata("schedule not set"));
    }
    let schedule = Schedule::parse(&text)
        .map_err(|reason| ComponentError::metadata(format!("invalid schedule format '{text}': {reason}")))?;
    let input = Arc::new(Cron { name: request.name, schedule });
    Ok(Arc::new(Binding { input: Some(input), output: None }))
}

struct Cron {
    name: String,
    schedule: Schedule,
}

#[async_trait]
impl InputBinding for Cron {
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> Result<Reading> {
        let (name, clock) = (self.name.clone(), Clock::start(&self.schedule));
        Ok(Box::pin(async move {
            run(&name, clock, &*sink, &stop).await;
            Ok(())
        }))
    }
}

async fn run(name: &str, mut clock: Clock, sink: &dyn Sink, stop: &CancellationToken) {
    let mut running = FuturesUnordered::new();
    loop {
        select! {
            () = stop.cancelled() => break,
            () = clock.tick() => {}
            Some(_) = running.next() => continue,
        }
        clock.advance();
        if running.len() < MAX_RUNNING {
            running.push(sink.deliver(event()));
        } else {
            tracing::warn!(binding = name, "event left out: {MAX_RUNNING} are still being handled");
        }
    }
    // Nobody sends an event of the clock again, so what became of one does not matter here.
    while running.next().await.is_some() {}
}

fn event() -> Event {
    let time = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string();
    let metadata: Metadata = [("readTimeUTC".to_owned(), time), ("timeZone".to_owned(), "Local".to_owned())].into();
    Event { metadata, ..Event::default() }
}

/// When the next event is due.
enum Clock {
    /// By the time since the last, however the clock on the wall is set.
    Interval { next: Instant, every: Duration },
    /// By the clock on the wall.
    Calendar { next: Option<Timestamp>, calendar: Arc<Calendar> },
}

impl Clock {
    fn start(schedule: &Schedule) -> Self {
        match schedule {
            Schedule::Every(every) => Self::Interval { next: Instant::now() + *every, every: *every },
            Schedule::Calendar(calendar) => {
                Self::Calendar { next: calendar.next(Timestamp::now()), calendar: Arc::clone(calendar) }
            }
        }
    }

    async fn tick(&self) {
        match self {
            Self::Interval { next, .. } => sleep_until(*next).await,
            Self::Calendar { next: None, .. } => std::future::pending().await,
            Self::Calendar { next: Some(next), .. } => {
                // Negative once it is past.
                while let Ok(left) = Duration::try_from(next.duration_since(Timestamp::now()))
                    && !left.is_zero()
                {
                    sleep(left.min(LOOK_INTERVAL)).await;
                }
            }
        }
    }

    /// After a tick: what was missed meanwhile, asleep or stopped, is not made up for.
    fn advance(&mut self) {
        match self {
            Self::Interval { next, every } => *next = (*next + *every).max(Instant::now()),
            Self::Calendar { next, calendar } => *next = calendar.next(Timestamp::now().max(next.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use trilby_component::{ErrorKind, binding::NotHandled};

    use super::*;

    struct Notes(mpsc::Sender<Metadata>);

    #[async_trait]
    impl Sink for Notes {
        async fn deliver(&self, event: Event) -> Result<Option<bytes::Bytes>, NotHandled> {
            let _ = self.0.send(event.metadata).await;
            Err(NotHandled("never mind".to_owned()))
        }
    }

    async fn opened(schedule: &str) -> Result<Arc<Binding>> {
        let properties = [("schedule", schedule)].into_iter().collect();
        open(OpenRequest { name: "tick".to_owned(), properties }).await
    }

    #[tokio::test]
    async fn events_come_at_their_time_until_reading_is_stopped() {
        for schedule in ["@every 10ms", "* * * * * *"] {
            let binding = opened(schedule).await.expect("valid");
            assert!(binding.output.is_none());
            let (notes, mut seen) = mpsc::channel(1);
            let stop = CancellationToken::new();
            let input = binding.input.as_ref().expect("an input");
            let reading = tokio::spawn(input.read(Arc::new(Notes(notes)), stop.clone()).await.expect("begins"));
            let began = Instant::now();
            for _ in 0..2 {
                let metadata = seen.recv().await.expect("comes");
                assert_eq!(metadata["timeZone"], "Local");
                let time = &metadata["readTimeUTC"];
                assert!(time.ends_with(" +0000 UTC") && time.len() > "2026-11-21 07:52:43 +0000 UTC".len(), "{time}");
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{schedule}");
            stop.cancel();
            seen.close();
            reading.await.expect("no panic").expect("ends well");
        }
    }

    #[tokio::test]
    async fn a_schedule_that_means_nothing_is_refused() {
        for (schedule, expect) in [
            ("", "schedule not set"),
            ("nonsense", "invalid schedule format 'nonsense': expected 5 to 6 fields, found 1: [nonsense]"),
            ("@never", "invalid schedule format '@never': unrecognized descriptor: @never"),
        ] {
            let error = opened(schedule).await.err().expect("refused");
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidMetadata, expect));
        }
    }
}
