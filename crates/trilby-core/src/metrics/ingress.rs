//! Counts and latencies of events on their way from brokers to the app, under the names that daprd's dashboards read.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Series, escaped, histogram};
use crate::Identity;

/// What became of an event, or of one attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The app handled it.
    Success,
    /// It is to be tried again, here or by the broker.
    Retry,
    /// It could not be handled, and was given up.
    Drop,
    /// Nobody wants it: the app said so, or it has no route.
    Unwanted,
}

const FATES: [Fate; 4] = [Fate::Success, Fate::Retry, Fate::Drop, Fate::Unwanted];

impl Fate {
    /// Dapr's labels `process_status` and `status`.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Success => ("success", ""),
            Self::Retry => ("retry", ""),
            Self::Drop => ("drop", ""),
            Self::Unwanted => ("drop", "success"),
        }
    }
}

/// What is measured of one broker of one app.
#[derive(Debug, Clone)]
pub struct Ingress(Arc<Topics>);

#[derive(Debug)]
struct Topics {
    labels: String,
    meters: Mutex<BTreeMap<String, Arc<IngressMeter>>>,
}

impl Ingress {
    pub(super) fn new(component: &str, app: &Identity) -> Self {
        let labels = format!(
            "app_id=\"{}\",component=\"{}\",namespace=\"{}\"",
            escaped(&app.id),
            escaped(component),
            escaped(app.namespace.as_deref().unwrap_or_default())
        );
        Self(Arc::new(Topics { labels, meters: Mutex::default() }))
    }

    /// The meter of a subscription to `topic`; one for all that have it in common.
    #[must_use]
    pub fn topic(&self, topic: &str) -> Arc<IngressMeter> {
        let mut meters = self.0.meters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry(topic.to_owned()).or_default())
    }

    fn meters(&self) -> Vec<(String, Arc<IngressMeter>)> {
        let meters = self.0.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |topic: &str| format!("{},topic=\"{}\"", self.0.labels, escaped(topic));
        meters.iter().map(|(topic, meter)| (labels(topic), Arc::clone(meter))).collect()
    }
}

/// What is measured of one topic.
#[derive(Debug)]
pub struct IngressMeter {
    /// By fate.
    single: [Series; FATES.len()],
    bulk: Series,
    /// By fate.
    bulk_events: [AtomicU64; FATES.len()],
}

impl Default for IngressMeter {
    fn default() -> Self {
        Self {
            single: std::array::from_fn(|_| Series::new()),
            bulk: Series::new(),
            bulk_events: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl IngressMeter {
    /// Notes one event, and how long the app took; zero if it was not asked.
    pub fn record(&self, fate: Fate, elapsed: Duration) {
        self.single[fate as usize].record(elapsed);
    }

    /// Notes a delivery of several events.
    pub fn record_bulk(&self, elapsed: Duration) {
        self.bulk.record(elapsed);
    }

    /// Notes one event of several.
    pub fn record_bulk_event(&self, fate: Fate) {
        self.bulk_events[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many events ended like this, or attempts at them.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        self.single[fate as usize].count.load(Ordering::Relaxed)
    }
}

pub(super) fn render(text: &mut String, brokers: &[Ingress]) {
    const NAME: &str = "dapr_component_pubsub_ingress";

    let meters: Vec<_> = brokers.iter().flat_map(Ingress::meters).collect();
    let single = || {
        meters.iter().flat_map(|(labels, meter)| {
            FATES.into_iter().filter_map(move |fate| {
                let (process_status, status) = fate.labels();
                let series = &meter.single[fate as usize];
                let labels = format!("{labels},process_status=\"{process_status}\",status=\"{status}\"");
                (series.count.load(Ordering::Relaxed) > 0).then_some((labels, series))
            })
        })
    };
    let bulk = || {
        let measured = meters.iter().filter(|(_, meter)| meter.bulk.count.load(Ordering::Relaxed) > 0);
        measured.map(|(labels, meter)| (format!("{labels},process_status=\"\""), meter))
    };
    if single().next().is_some() {
        head(
            text,
            &format!("{NAME}_count"),
            "counter",
            "The number of incoming messages arriving from the pub/sub component.",
        );
        for (labels, series) in single() {
            let _ = writeln!(text, "{NAME}_count{{{labels}}} {}", series.count.load(Ordering::Relaxed));
        }
        let name = format!("{NAME}_latencies");
        head(text, &name, "histogram", "The consuming app event processing latency.");
        for (labels, series) in single() {
            histogram(text, &name, &labels, series);
        }
    }
    if bulk().next().is_some() {
        let name = format!("{NAME}_bulk_count");
        head(
            text,
            &name,
            "counter",
            "The number of incoming bulk subscribe calls arriving from the pub/sub component.",
        );
        for (labels, meter) in bulk() {
            let _ = writeln!(text, "{name}{{{labels}}} {}", meter.bulk.count.load(Ordering::Relaxed));
        }
        let name = format!("{NAME}_bulk_event_count");
        head(
            text,
            &name,
            "counter",
            "The number of incoming messages arriving from the pub/sub component through bulk.",
        );
        for (labels, meter) in &meters {
            for fate in [Fate::Success, Fate::Retry, Fate::Drop] {
                let count = meter.bulk_events[fate as usize].load(Ordering::Relaxed);
                if count > 0 {
                    let status = fate.labels().0;
                    let _ = writeln!(text, "{name}{{{labels},process_status=\"{status}\"}} {count}");
                }
            }
        }
        let name = format!("{NAME}_bulk_latencies");
        head(text, &name, "histogram", "The consuming app event processing latency of bulk deliveries.");
        for (labels, meter) in bulk() {
            histogram(text, &name, &labels, &meter.bulk);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_what_became_of_them() {
        let ingress = Ingress::new("ps", &Identity::new("myapp"));
        let mut text = String::new();
        render(&mut text, std::slice::from_ref(&ingress));
        assert_eq!(text, "");

        let meter = ingress.topic("a");
        meter.record(Fate::Success, Duration::from_millis(2));
        ingress.topic("a").record(Fate::Unwanted, Duration::ZERO);
        meter.record_bulk(Duration::from_millis(1));
        meter.record_bulk_event(Fate::Retry);
        render(&mut text, &[ingress]);
        let labels = r#"app_id="myapp",component="ps",namespace="",topic="a""#;
        for line in [
            format!("dapr_component_pubsub_ingress_count{{{labels},process_status=\"success\",status=\"\"}} 1\n"),
            format!("dapr_component_pubsub_ingress_count{{{labels},process_status=\"drop\",status=\"success\"}} 1\n"),
            format!(
                "dapr_component_pubsub_ingress_latencies_sum{{{labels},process_status=\"success\",status=\"\"}} 2\n"
            ),
            format!("dapr_component_pubsub_ingress_bulk_count{{{labels},process_status=\"\"}} 1\n"),
            format!("dapr_component_pubsub_ingress_bulk_event_count{{{labels},process_status=\"retry\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
