//! Counts and latencies of component calls, under the names that daprd's dashboards read.
//!
//! A registry is a value. Recording is a few relaxed atomic additions, with no lock and no allocation.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

mod errors;

use crate::Identity;

pub use errors::ErrorMeter;

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
}

const OPS: [Op; 7] = [Op::Get, Op::Set, Op::Delete, Op::BulkGet, Op::BulkDelete, Op::Transaction, Op::Query];

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
    /// By operation, then failed or succeeded.
    series: [[Series; 2]; OPS.len()],
}

impl Meter {
    /// Notes one call.
    pub fn record(&self, op: Op, success: bool, elapsed: Duration) {
        self.series[op as usize][usize::from(success)].record(elapsed);
    }

    /// How many calls of `op` ended with `success`.
    #[must_use]
    pub fn count(&self, op: Op, success: bool) -> u64 {
        self.series[op as usize][usize::from(success)].count.load(Ordering::Relaxed)
    }
}

/// All meters of a runtime.
#[derive(Debug, Default)]
pub struct Metrics {
    meters: Mutex<Vec<Arc<Meter>>>,
    errors: Mutex<Vec<Arc<ErrorMeter>>>,
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
        let meter = Arc::new(Meter { kind, labels, series: std::array::from_fn(|_| [Series::new(), Series::new()]) });
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
        OPS.iter().flat_map(move |op| {
            [false, true].into_iter().filter_map(move |success| {
                let series = &meter.series[*op as usize][usize::from(success)];
                let labels = format!("{},operation=\"{}\",success=\"{success}\"", meter.labels, op.name());
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
    fn label_values_are_escaped_as_prometheus_reads_them() {
        assert_eq!(escaped("a\"b\\c\nd\u{7f}ž"), "a\\\"b\\\\c\\nd\u{7f}ž");
    }
}
