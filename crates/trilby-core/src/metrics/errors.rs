//! How often an app was answered with which error.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Code, Identity};

/// Counts the errors that one app is answered with.
#[derive(Debug)]
pub struct ErrorMeter {
    app_id: String,
    counts: [AtomicU64; Code::ALL.len()],
}

impl ErrorMeter {
    pub(super) fn new(app: &Identity) -> Self {
        Self { app_id: app.id.clone(), counts: [const { AtomicU64::new(0) }; Code::ALL.len()] }
    }

    /// Notes one answer.
    pub fn record(&self, code: Code) {
        self.counts[code as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Several rows of the table may share a code and are one series then.
pub(super) fn render(text: &mut String, meters: &[Arc<ErrorMeter>]) {
    const NAME: &str = "dapr_error_code_total";
    let mut series = BTreeMap::<_, u64>::new();
    for meter in meters {
        for (code, count) in Code::ALL.iter().zip(&meter.counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                *series.entry((meter.app_id.as_str(), code.category(), code.row().tag)).or_default() += count;
            }
        }
    }
    if series.is_empty() {
        return;
    }
    let _ = writeln!(text, "# HELP {NAME} Number of times an error with a specific errorcode was encountered.");
    let _ = writeln!(text, "# TYPE {NAME} counter");
    for ((app_id, category, tag), count) in series {
        let _ = writeln!(
            text,
            "{NAME}{{app_id=\"{}\",category=\"{category}\",error_code=\"{tag}\"}} {count}",
            super::escaped(app_id)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_one_code_are_one_series() {
        let meter = ErrorMeter::new(&Identity::new("myapp"));
        for code in [Code::StateSave, Code::StateSaveEtagMismatch, Code::SecretGet] {
            meter.record(code);
        }
        let mut text = String::new();
        render(&mut text, &[Arc::new(meter)]);
        let series = |category, tag, count| {
            format!("dapr_error_code_total{{app_id=\"myapp\",category=\"{category}\",error_code=\"{tag}\"}} {count}\n")
        };
        assert!(text.contains(&series("state", "ERR_STATE_SAVE", 2)), "{text}");
        assert!(text.contains(&series("secret", "ERR_SECRET_GET", 1)), "{text}");
    }
}
