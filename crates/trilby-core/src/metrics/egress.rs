//! Counts and latencies of what an app publishes, under the names that daprd's dashboards read.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Series, escaped, histogram};
use crate::Identity;

/// What is measured of publishing to one broker of one app.
#[derive(Debug, Clone)]
pub struct Egress(Arc<Topics>);

#[derive(Debug)]
struct Topics {
    labels: String,
    meters: RwLock<HashMap<String, Arc<TopicMeter>>>,
}

/// One topic. Arrays are by failed or succeeded.
#[derive(Debug)]
struct TopicMeter {
    single: [Series; 2],
    bulk: [Series; 2],
    bulk_events: AtomicU64,
}

impl Egress {
    pub(super) fn new(component: &str, app: &Identity) -> Self {
        let labels = format!(
            "app_id=\"{}\",component=\"{}\",namespace=\"{}\"",
            escaped(&app.id),
            escaped(component),
            escaped(app.namespace.as_deref().unwrap_or_default())
        );
        Self(Arc::new(Topics { labels, meters: RwLock::default() }))
    }

    /// Notes one event.
    pub fn record(&self, topic: &str, success: bool, elapsed: Duration) {
        self.topic(topic).single[usize::from(success)].record(elapsed);
    }

    /// Notes a request of several events, of which `published` were published.
    pub fn record_bulk(&self, topic: &str, success: bool, published: usize, elapsed: Duration) {
        let meter = self.topic(topic);
        meter.bulk[usize::from(success)].record(elapsed);
        meter.bulk_events.fetch_add(published as u64, Ordering::Relaxed);
    }

    fn topic(&self, topic: &str) -> Arc<TopicMeter> {
        let known = self.0.meters.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        known.unwrap_or_else(|| {
            let mut meters = self.0.meters.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(meters.entry(topic.to_owned()).or_insert_with(|| Arc::new(TopicMeter::new())))
        })
    }

    fn meters(&self) -> Vec<(String, Arc<TopicMeter>)> {
        let meters = self.0.meters.read().unwrap_or_else(PoisonError::into_inner);
        let mut meters: Vec<_> = meters.iter().map(|(topic, meter)| (topic.clone(), Arc::clone(meter))).collect();
        meters.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let labels = |topic: String| format!("{},topic=\"{}\"", self.0.labels, escaped(&topic));
        meters.into_iter().map(|(topic, meter)| (labels(topic), meter)).collect()
    }
}

impl TopicMeter {
    fn new() -> Self {
        let pair = || [Series::new(), Series::new()];
        Self { single: pair(), bulk: pair(), bulk_events: AtomicU64::new(0) }
    }
}

pub(super) fn render(text: &mut String, brokers: &[Egress]) {
    const NAME: &str = "dapr_component_pubsub_egress";

    let meters: Vec<_> = brokers.iter().flat_map(Egress::meters).collect();
    render_series(
        text,
        NAME,
        "of outgoing messages published to the pub/sub component",
        &measured(&meters, |meter| &meter.single),
    );
    let bulk = measured(&meters, |meter| &meter.bulk);
    let name = format!("{NAME}_bulk");
    render_series(text, &name, "of outgoing bulk publish calls to the pub/sub component", &bulk);
    if !bulk.is_empty() {
        let name = format!("{name}_event_count");
        let _ =
            writeln!(text, "# HELP {name} The number of outgoing bulk messages published to the pub/sub component.");
        let _ = writeln!(text, "# TYPE {name} counter");
        for (labels, meter) in &meters {
            let count = meter.bulk_events.load(Ordering::Relaxed);
            if count > 0 {
                let _ = writeln!(text, "{name}{{{labels},success=\"true\"}} {count}");
            }
        }
    }
}

/// The series that were measured at least once, with their labels.
fn measured<'a>(
    meters: &'a [(String, Arc<TopicMeter>)],
    series: impl Fn(&'a TopicMeter) -> &'a [Series; 2],
) -> Vec<(String, &'a Series)> {
    let of_topic = |(labels, meter): &'a (String, Arc<TopicMeter>)| {
        let labelled = move |(success, series)| (format!("{labels},success=\"{success}\""), series);
        [false, true].into_iter().zip(series(meter)).map(labelled)
    };
    meters.iter().flat_map(of_topic).filter(|(_, series)| series.count.load(Ordering::Relaxed) > 0).collect()
}

fn render_series(text: &mut String, name: &str, what: &str, series: &[(String, &Series)]) {
    if series.is_empty() {
        return;
    }
    let _ = writeln!(text, "# HELP {name}_count The number {what}.\n# TYPE {name}_count counter");
    for (labels, series) in series {
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", series.count.load(Ordering::Relaxed));
    }
    let name = format!("{name}_latencies");
    let _ = writeln!(text, "# HELP {name} The latency {what}.\n# TYPE {name} histogram");
    for (labels, series) in series {
        histogram(text, &name, labels, series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_topic_and_whether_they_were_published() {
        let egress = Egress::new("ps", &Identity::new("myapp"));
        let mut text = String::new();
        render(&mut text, std::slice::from_ref(&egress));
        assert_eq!(text, "");

        egress.record("a", true, Duration::from_millis(2));
        egress.record("a", true, Duration::ZERO);
        egress.record("b", false, Duration::ZERO);
        egress.record_bulk("a", false, 3, Duration::ZERO);
        render(&mut text, &[egress]);
        let labels = |topic: &str, success: bool| {
            format!(r#"app_id="myapp",component="ps",namespace="",topic="{topic}",success="{success}""#)
        };
        for line in [
            format!("dapr_component_pubsub_egress_count{{{}}} 2\n", labels("a", true)),
            format!("dapr_component_pubsub_egress_count{{{}}} 1\n", labels("b", false)),
            format!("dapr_component_pubsub_egress_latencies_sum{{{}}} 2\n", labels("a", true)),
            format!("dapr_component_pubsub_egress_bulk_count{{{}}} 1\n", labels("a", false)),
            format!("dapr_component_pubsub_egress_bulk_event_count{{{}}} 3\n", labels("a", true)),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains(&format!("egress_count{{{}}}", labels("a", false))), "{text}");
    }
}
