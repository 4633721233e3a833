//! Apps behind a port, as flags and files describe them, and how their health is asked for.

use std::time::Duration;

use trilby::{AppSpec, HealthCheck, door_grpc::app as grpc, door_http::app as http};

/// What an app speaks. Dapr's `--app-protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

impl Protocol {
    /// The spellings, for messages.
    pub const NAMES: &str = "http, https, h2c, grpc or grpcs";

    /// The protocol of a name in any case; empty is HTTP. `tls` is Dapr's older `--app-ssl`.
    #[must_use]
    pub fn parse(text: &str, tls: bool) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "" => Self::Http,
            "http" if tls => Self::Https,
            "http" => Self::Http,
            "https" => Self::Https,
            "h2c" => Self::H2c,
            "grpc" if tls => Self::Grpcs,
            "grpc" => Self::Grpc,
            "grpcs" => Self::Grpcs,
            _ => return None,
        })
    }

    /// Dapr's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }
}

/// An app that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub address: String,
    pub port: u16,
    pub protocol: Protocol,
    /// Most calls at once; `None` for no limit.
    pub max_concurrency: Option<u32>,
    /// Sent with every call; `APP_API_TOKEN`.
    pub api_token: Option<String>,
    pub max_body_bytes: usize,
}

impl Server {
    /// The app for a runtime.
    #[must_use]
    pub fn spec(&self, app_id: &str) -> AppSpec {
        let (address, port, api_token) = (self.address.clone(), self.port, self.api_token.clone());
        let max_concurrency = self.max_concurrency.and_then(|most| usize::try_from(most).ok());
        let over_http = |protocol| {
            let (address, api_token) = (address.clone(), api_token.clone());
            AppSpec::http_server(app_id, http::Options { protocol, address, port, api_token, max_concurrency })
        };
        let over_grpc = |protocol| {
            let (address, api_token, max_body_bytes) = (address.clone(), api_token.clone(), self.max_body_bytes);
            let options = grpc::Options { protocol, address, port, api_token, max_concurrency, max_body_bytes };
            AppSpec::grpc_server(app_id, options)
        };
        match self.protocol {
            Protocol::Http => over_http(http::Protocol::Http),
            Protocol::Https => over_http(http::Protocol::Https),
            Protocol::H2c => over_http(http::Protocol::H2c),
            Protocol::Grpc => over_grpc(grpc::Protocol::Grpc),
            Protocol::Grpcs => over_grpc(grpc::Protocol::Grpcs),
        }
    }
}

/// Dapr's settings of health checks, as given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HealthFlags<'a> {
    pub is_enabled: bool,
    pub path: Option<&'a str>,
    pub interval_seconds: Option<i64>,
    pub timeout_millis: Option<i64>,
    pub threshold: Option<i64>,
}

impl HealthFlags<'_> {
    /// The health check, if one is wanted. What is not positive is Dapr's default.
    ///
    /// # Errors
    /// If an answer may take longer than the time between two questions.
    pub(crate) fn check(&self) -> Result<Option<HealthCheck>, String> {
        let default = HealthCheck::default();
        let positive = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).filter(|n| *n > 0);
        let path = self.path.filter(|path| !path.is_empty());
        let check = HealthCheck {
            path: path.map_or(default.path, |path| format!("/{}", path.trim_start_matches('/'))),
            interval: positive(self.interval_seconds).map_or(default.interval, Duration::from_secs),
            timeout: positive(self.timeout_millis).map_or(default.timeout, Duration::from_millis),
            threshold: positive(self.threshold).and_then(|n| n.try_into().ok()).unwrap_or(default.threshold),
        };
        if check.timeout > check.interval {
            return Err("value for 'health-probe-timeout' must be smaller than 'health-probe-interval'".to_owned());
        }
        Ok(self.is_enabled.then_some(check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_have_daprs_defaults() {
        assert_eq!(HealthFlags::default().check(), Ok(None));
        let enabled = HealthFlags { is_enabled: true, ..HealthFlags::default() };
        assert_eq!(enabled.check(), Ok(Some(HealthCheck::default())));
        let given = HealthFlags { path: Some("ok"), interval_seconds: Some(1), threshold: Some(0), ..enabled };
        let interval = Duration::from_secs(1);
        assert_eq!(given.check(), Ok(Some(HealthCheck { path: "/ok".into(), interval, ..HealthCheck::default() })));
        let slow = HealthFlags { interval_seconds: Some(1), timeout_millis: Some(1001), ..enabled };
        assert!(slow.check().expect_err("too slow").contains("'health-probe-timeout'"));
    }
}
