//! The bindings block: calls to output bindings, and the events of input bindings to the app.

mod input;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use trilby_component::{
    ComponentError, ErrorKind, Metadata,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
};

use crate::{
    Api, AppChannel, Code, Ctx, Error, Result, Wiring,
    ctx::{BAGGAGE, TRACEPARENT, TRACESTATE, Trace, UNTRACED},
    handle::Handle,
    metrics::Op,
    resiliency::{Block, Failure, Refusal},
};

use input::Inputs;

/// A binding that is open.
pub struct BindingComponent {
    /// The resource's name.
    pub name: String,
    /// The binding.
    pub binding: Arc<Binding>,
    /// Where an app with routes gets its events; the component's `route`, else its name. Without a leading slash.
    pub route: String,
    /// The component's `direction`; `None` if it does not say.
    pub direction: Option<Direction>,
}

/// Which ways a binding is used, as its metadata says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Its events are read without asking the app whether it wants them.
    pub input: bool,
    /// It may be called.
    pub output: bool,
}

/// A failed call, and what the binding said all the same; doors show its metadata.
#[derive(Debug)]
pub struct InvokeFailure {
    /// The error.
    pub error: Error,
    /// Metadata of the answer; mostly empty.
    pub metadata: Metadata,
}

impl From<Error> for InvokeFailure {
    fn from(error: Error) -> Self {
        Self { error, metadata: Metadata::new() }
    }
}

/// The bindings block of one app.
#[derive(Default)]
pub struct BindingsApi {
    outputs: HashMap<String, Handle<dyn OutputBinding>>,
    inputs: Inputs,
}

impl BindingsApi {
    /// A block over the bindings that the app may use.
    pub fn new(wiring: &Wiring<'_>, bindings: impl IntoIterator<Item = BindingComponent>) -> Self {
        let mut block = Self::default();
        for component in bindings {
            let may = component.direction.unwrap_or(Direction { input: true, output: true });
            if let Some(output) = component.binding.output.as_ref().filter(|_| may.output) {
                let handle = wiring.handle(Block::Binding, &component.name, Arc::clone(output));
                block.outputs.insert(component.name.clone(), handle);
            }
            if may.input {
                block.inputs.add(wiring, component);
            }
        }
        block
    }

    /// How long an app may take to say whether it wants the events of a binding. Default 3 s.
    #[must_use]
    pub fn with_probe_timeout(mut self, limit: Duration) -> Self {
        self.inputs.probe_timeout = limit;
        self
    }

    /// Calls an output binding.
    ///
    /// # Errors
    /// `InvokeOutputBinding` if there is none of that name, it does not know the operation, or it fails.
    pub async fn invoke(
        &self,
        ctx: &Ctx,
        name: &str,
        operation: &str,
        data: Bytes,
        mut metadata: Metadata,
    ) -> Result<InvokeResponse, InvokeFailure> {
        if operation.is_empty() {
            return Err(failed(name, "operation field is missing from request", ErrorKind::InvalidRequest).into());
        }
        let Some(output) = self.outputs.get(name) else {
            return Err(failed(name, format_args!("couldn't find output binding {name}"), ErrorKind::NotFound).into());
        };
        let known = output.describe(|binding| binding.operations().iter().find(|known| **known == operation).copied());
        let Some(known) = known else { return Err(unsupported(output, operation).into()) };

        add_trace(&ctx.trace, &mut metadata);
        let request = InvokeRequest { operation: operation.to_owned(), data, metadata };
        let invoked = output.call(ctx, Op::Binding(known), |binding| binding.invoke(&request)).await;
        invoked.map_err(|InvokeError { error, response }| InvokeFailure {
            error: failed(name, &error, error.kind()),
            metadata: response.map(|response| response.metadata).unwrap_or_default(),
        })
    }

    /// Begins to read the input bindings that the app listens to; returns when their events are on their way to it.
    /// Does nothing if they are read.
    ///
    /// Whether the app wants the events is asked for each binding, unless its `direction` says so. `api` is what the
    /// app's replies are carried out with; it is held no longer than others hold it.
    pub async fn start(&self, api: &Api, channel: &Arc<dyn AppChannel>) {
        self.inputs.start(api, channel).await;
    }

    /// Ends what [`start`](Self::start) began, after the deliveries that are under way.
    pub async fn stop(&self) {
        self.inputs.stop().await;
    }
}

impl Failure for InvokeError {
    fn is_retryable(&self) -> bool {
        self.error.is_retryable()
    }

    fn timed_out(limit: Duration) -> Self {
        ComponentError::timed_out(limit).into()
    }

    fn refused(refusal: Refusal) -> Self {
        ComponentError::refused(refusal).into()
    }
}

fn failed(name: &str, cause: impl fmt::Display, kind: ErrorKind) -> Error {
    Error::new(Code::InvokeOutputBinding, format!("error invoking output binding {name}: {cause}")).with_kind_of(kind)
}

fn unsupported(output: &Handle<dyn OutputBinding>, operation: &str) -> Error {
    let name = output.name();
    let known = output.describe(|binding| binding.operations().join(" "));
    let cause =
        format_args!("binding {name} does not support operation {operation}. supported operations:{known}").to_string();
    failed(name, cause, ErrorKind::Unsupported)
}

/// Tells the binding of the trace. A caller's own entries count only if it is not traced itself.
fn add_trace(trace: &Trace, metadata: &mut Metadata) {
    let own = metadata.contains_key(TRACEPARENT.as_str());
    let parent = trace.parent.clone().or_else(|| (!own).then_some(UNTRACED));
    let entries =
        [(TRACEPARENT, parent.as_ref()), (TRACESTATE, trace.state.as_ref()), (BAGGAGE, trace.baggage.as_ref())];
    for (name, value) in entries {
        if let Some(value) = value.and_then(|value| value.to_str().ok()) {
            metadata.insert(name.as_str().to_owned(), value.to_owned());
        }
    }
}
