//! Health checks: an app gets nothing while it says that it is unwell.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};
use trilby_core::{Api, AppChannel, Ctx, metadata};

use crate::guard::Guard;

/// How an app is asked whether it is healthy. Until its first good answer, and after too many bad ones in a row, it gets
/// no calls, no events and no jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where an app with routes is asked. Default `/healthz`.
    pub path: String,
    /// Time from one question to the next. Default 5 s.
    pub interval: Duration,
    /// Longest time for an answer, not longer than `interval`. Default 500 ms.
    pub timeout: Duration,
    /// Bad answers in a row after which the app is unhealthy, at least 1. Default 3.
    pub threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/healthz".to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
            threshold: 3,
        }
    }
}

impl HealthCheck {
    /// As metadata show it.
    pub(crate) fn facts(&self) -> metadata::AppHealth {
        let Self { path, interval, timeout, threshold } = self.clone();
        metadata::AppHealth { path, interval, timeout, threshold }
    }
}

/// Asks again and again, and opens and closes the way to the app. Never ends.
pub(crate) async fn watch(check: &HealthCheck, api: &Api, guard: &Arc<Guard>, drain_timeout: Duration) {
    let (app_id, channel) = (&api.app.id, Arc::clone(guard) as Arc<dyn AppChannel>);
    let mut bad_answers = check.threshold;
    let mut ticks = interval(check.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = match timeout(check.timeout, guard.check_health(&Ctx::default(), &check.path)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", check.timeout)),
        };
        match answer {
            Ok(()) => {
                if bad_answers >= check.threshold {
                    tracing::info!(app_id, "App entered healthy status");
                    guard.set_healthy(true);
                    api.start(&channel).await;
                }
                bad_answers = 0;
            }
            Err(reason) => {
                bad_answers = bad_answers.saturating_add(1);
                if bad_answers == check.threshold {
                    tracing::warn!(app_id, reason, "App entered un-healthy status");
                    guard.set_healthy(false);
                    // An app that is unwell may not finish what it has begun.
                    if timeout(drain_timeout, api.stop()).await.is_err() {
                        tracing::warn!(app_id, "deliveries did not finish in time and are cut off");
                    }
                }
            }
        }
    }
}
