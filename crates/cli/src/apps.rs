//! Apps behind a port, as flags and files describe them.

use trilby::{AppSpec, door_grpc::app as grpc, door_http::app as http};

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
