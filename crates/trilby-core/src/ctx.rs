//! What travels with a call: the first argument of every block function.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};

/// W3C trace context and baggage of a call, passed on as they came.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// `traceparent`.
    pub parent: Option<HeaderValue>,
    /// `tracestate`.
    pub state: Option<HeaderValue>,
    /// `baggage`.
    pub baggage: Option<HeaderValue>,
}

/// Header of the W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Header of the W3C trace context.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Header of W3C baggage.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The `traceparent` of a call that nobody traces. Dapr sends it rather than none.
pub const UNTRACED: HeaderValue = HeaderValue::from_static("00-00000000000000000000000000000000-0000000000000000-00");

impl Trace {
    /// Reads the three headers.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        if headers.is_empty() {
            return Self::default();
        }
        Self {
            parent: headers.get(TRACEPARENT).cloned(),
            state: headers.get(TRACESTATE).cloned(),
            baggage: headers.get(BAGGAGE).cloned(),
        }
    }

    /// Writes the headers of a message that belongs to this trace.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.parent.clone().unwrap_or(UNTRACED));
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
        if let Some(baggage) = &self.baggage {
            headers.insert(BAGGAGE, baggage.clone());
        }
    }
}

/// The context of one call.
#[derive(Debug, Clone, Default)]
pub struct Ctx {
    /// Trace context of the caller.
    pub trace: Trace,
    /// When the caller stops waiting. `None` means never.
    pub deadline: Option<Instant>,
}

impl Ctx {
    /// A context of a call that carries these headers.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self { trace: Trace::from_headers(headers), deadline: None }
    }
}
