//! Counts and latencies of component calls, under the names that daprd's dashboards read.
//!
//! A registry is a value. Recording is a few relaxed atomic additions, with no lock and no allocation.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

mod egress;
mod errors;
mod ingress;
mod resiliency;

use crate::Identity;

pub use egress::Egress;
pub use errors::ErrorMeter;
pub use ingress::{Fate, Ingress, IngressMeter};
pub(crate) use resiliency::{Direction, PolicyMeter, ResiliencyMeter};

/// An operation on a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Read one.
    Get,
    /// Write one or many.
    Set,
    /// Delete one.
    Delete,
    /// Read many.
    BulkGet,
    /// Delete many.
    BulkDelete,
    /// All or nothing.
    Transaction,
    /// Find by content.
    Query,
    /// Publish one message.
    Publish,
    /// Publish several messages.
    BulkPublish,
    /// Begin to watch.
    Subscribe,
    /// Take a lock.
    TryLock,
    /// Give a lock back.
    Unlock,
    /// Whatever a key is used for.
    Crypto,
    /// Ask a language model: all that one can do with it, so that Dapr gives it no label.
    Converse,
    /// An operation of an output binding, by its own name.
    Binding(&'static str),
    /// An event of an input binding. It has no name: Dapr shows none.
    Event,
}

/// Operations that one component may be asked for; those beyond are not counted. No component of Dapr has as many.
const MAX_OPS: usize = 16;

impl Op {
    /// Dapr's label value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::BulkGet => "bulk_get",
            Self::BulkDelete => "bulk_delete",
            Self::Transaction => "transaction",
            Self::Query => "query",
            Self::Publish => "publish",
            Self::BulkPublish => "bulk_publish",
            Self::Subscribe => "subscribe",
            Self::TryLock => "try_lock",
            Self::Unlock => "unlock",
            Self::Binding(name) => name,
            Self::Crypto => "crypto_op",
            Self::Converse => "",
            Self::Event => "",
        }
    }
}

/// Upper bounds of the latency buckets in milliseconds, Dapr's defaults.
const BOUNDS_MS: [u64; 34] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800,
    1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
];

/// One series: how often, how long. The last bucket is "longer".
#[derive(Debug)]
struct Series {
    count: AtomicU64,
    sum_nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
}

impl Series {
    fn new() -> Self {
        Self { count: AtomicU64::new(0), sum_nanos: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; 35] }
    }

    fn record(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.iter().position(|bound| nanos <= bound * 1_000_000).unwrap_or(BOUNDS_MS.len());
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

/// What is measured of one component of one app.
#[derive(Debug)]
pub struct Meter {
    kind: &'static str,
    labels: String,
    /// In the order in which operations were first seen. Room for them is taken once, so that recording needs no lock.
    ops: [OnceLock<Measured>; MAX_OPS],
}

/// One operation: the calls that failed, and those that succeeded.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    series: [Series; 2],
}

impl Meter {
    /// A meter that no registry shows, for a component whose calls are counted otherwise.
    #[must_use]
    pub fn unlisted() -> Arc<Self> {
        Arc::new(Self::new("", String::new()))
    }

    fn new(kind: &'static str, labels: String) -> Self {
        Self { kind, labels, ops: [const { OnceLock::new() }; MAX_OPS] }
    }

    /// Notes one call.
    pub fn record(&self, op: Op, success: bool, elapsed: Duration) {
        let name = op.name();
        let new = || Measured { name, series: [Series::new(), Series::new()] };
        let found = self.ops.iter().map(|place| place.get_or_init(new)).find(|measured| measured.name == name);
        if let Some(measured) = found {
            measured.series[usize::from(success)].record(elapsed);
        }
    }

    /// How many calls of `op` ended with `success`.
    #[must_use]
    pub fn count(&self, op: Op, success: bool) -> u64 {
        let found = self.measured().find(|measured| measured.name == op.name());
        found.map_or(0, |measured| measured.series[usize::from(success)].count.load(Ordering::Relaxed))
    }

    fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.ops.iter().map_while(OnceLock::get)
    }
}

/// All meters of a runtime.
#[derive(Debug, Default)]
pub struct Metrics {
    meters: Mutex<Vec<Arc<Meter>>>,
    errors: Mutex<Vec<Arc<ErrorMeter>>>,
    egress: Mutex<Vec<Egress>>,
    ingress: Mutex<Vec<Ingress>>,
    resiliency: Mutex<Vec<Arc<ResiliencyMeter>>>,
}

impl Metrics {
    /// A new meter for `component` of `kind` (`state`, `secret`) as `app` sees it.
    pub fn meter(&self, kind: &'static str, component: &str, app: &Identity) -> Arc<Meter> {
        let labels = format!(
            "app_id=\"{}\",component=\"{}\",namespace=\"{}\"",
            escaped(&app.id),
            escaped(component),
            escaped(app.namespace.as_deref().unwrap_or_default())
        );
        let meter = Arc::new(Meter::new(kind, labels));
        self.lock().push(Arc::clone(&meter));
        meter
    }

    /// A new meter for the errors that `app` is answered with. Dapr shows them only if a Configuration asks for it, with
    /// `spec.metrics.recordErrorCodes`.
    pub fn errors(&self, app: &Identity, shown: bool) -> Arc<ErrorMeter> {
        let meter = Arc::new(ErrorMeter::new(app));
        if shown {
            self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&meter));
        }
        meter
    }

    /// The meters of what `app` publishes to a broker.
    pub fn egress(&self, component: &str, app: &Identity) -> Egress {
        let egress = Egress::new(component, app);
        self.egress.lock().unwrap_or_else(PoisonError::into_inner).push(egress.clone());
        egress
    }

    /// The meters of what comes from a broker to `app`.
    pub fn ingress(&self, component: &str, app: &Identity) -> Ingress {
        let ingress = Ingress::new(component, app);
        self.ingress.lock().unwrap_or_else(PoisonError::into_inner).push(ingress.clone());
        ingress
    }

    /// The meter of the policies of `app`, made of resources of these names and namespaces.
    pub(crate) fn resiliency(&self, app: &Identity, resources: &[(&str, &str)]) -> Arc<ResiliencyMeter> {
        let meter = Arc::new(ResiliencyMeter::new(app, resources));
        self.resiliency.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&meter));
        meter
    }

    /// The Prometheus text exposition of everything that was measured at least once.
    #[must_use]
    pub fn render(&self) -> String {
        let meters = self.lock().clone();
        let mut kinds: Vec<_> = meters.iter().map(|meter| meter.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut text = String::new();
        for kind in kinds {
            let of_kind: Vec<_> = meters.iter().filter(|meter| meter.kind == kind).collect();
            render_counts(&mut text, kind, &of_kind);
            render_latencies(&mut text, kind, &of_kind);
        }
        egress::render(&mut text, &self.egress.lock().unwrap_or_else(PoisonError::into_inner));
        ingress::render(&mut text, &self.ingress.lock().unwrap_or_else(PoisonError::into_inner));
        resiliency::render(&mut text, &self.resiliency.lock().unwrap_or_else(PoisonError::into_inner));
        errors::render(&mut text, &self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Meter>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label's value. The format knows these three escapes and no other.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn measured<'a>(meters: &'a [&'a Arc<Meter>]) -> impl Iterator<Item = (String, &'a Series)> {
    meters.iter().flat_map(|meter| {
        meter.measured().flat_map(move |measured| {
            [false, true].into_iter().filter_map(move |success| {
                let series = &measured.series[usize::from(success)];
                let operation = match measured.name {
                    "" => String::new(),
                    name => format!(",operation=\"{name}\""),
                };
                let labels = format!("{}{operation},success=\"{success}\"", meter.labels);
                (series.count.load(Ordering::Relaxed) > 0).then_some((labels, series))
            })
        })
    })
}

fn render_counts(text: &mut String, kind: &str, meters: &[&Arc<Meter>]) {
    let name = format!("dapr_component_{kind}_count");
    let _ = writeln!(text, "# HELP {name} The number of operations performed on the {kind} component.");
    let _ = writeln!(text, "# TYPE {name} counter");
    for (labels, series) in measured(meters) {
        let _ = writeln!(text, "{name}{{{labels}}} {}", series.count.load(Ordering::Relaxed));
    }
}

fn render_latencies(text: &mut String, kind: &str, meters: &[&Arc<Meter>]) {
    let name = format!("dapr_component_{kind}_latencies");
    let _ = writeln!(text, "# HELP {name} The latency of the response from the {kind} component.");
    let _ = writeln!(text, "# TYPE {name} histogram");
    for (labels, series) in measured(meters) {
        histogram(text, &name, &labels, series);
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, series: &Series) {
    let mut total = 0;
    for (index, bucket) in series.buckets.iter().enumerate() {
        total += bucket.load(Ordering::Relaxed);
        let bound = BOUNDS_MS.get(index).map_or_else(|| "+Inf".to_owned(), u64::to_string);
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let sum = Duration::from_nanos(series.sum_nanos.load(Ordering::Relaxed)).as_secs_f64() * 1000.0;
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_shown_under_daprs_names() {
        let metrics = Metrics::default();
        let meter = metrics.meter("state", "mem", &Identity::new("myapp"));
        meter.record(Op::Get, true, Duration::from_millis(2));
        let text = metrics.render();
        let labels = r#"app_id="myapp",component="mem",namespace="",operation="get",success="true""#;
        assert!(text.contains(&format!("dapr_component_state_count{{{labels}}} 1\n")), "{text}");
        assert!(text.contains(&format!("dapr_component_state_latencies_bucket{{{labels},le=\"1\"}} 0\n")), "{text}");
        assert!(text.contains(&format!("dapr_component_state_latencies_bucket{{{labels},le=\"2\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("dapr_component_state_latencies_sum{{{labels}}} 2\n")), "{text}");
        assert!(!text.contains("set"), "{text}");
    }

    #[test]
    fn an_operation_is_counted_under_its_name_until_there_are_too_many() {
        const NAMES: [&str; MAX_OPS + 1] =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
        let meter = Metrics::default().meter("output_binding", "out", &Identity::new("myapp"));
        for name in NAMES {
            meter.record(Op::Binding(name), true, Duration::ZERO);
            meter.record(Op::Binding(name), false, Duration::ZERO);
            meter.record(Op::Binding(name), true, Duration::ZERO);
        }
        let count = |name| (meter.count(Op::Binding(name), true), meter.count(Op::Binding(name), false));
        assert_eq!((count("a"), count("p"), count("q")), ((2, 1), (2, 1), (0, 0)));
    }

    #[test]
    fn label_values_are_escaped_as_prometheus_reads_them() {
        assert_eq!(escaped("a\"b\\c\nd\u{7f}ž"), "a\\\"b\\\\c\\nd\u{7f}ž");
    }
}
