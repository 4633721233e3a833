//! Bindings: decode, call the block, encode.

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use trilby_component::{Metadata, binding::InvokeResponse};
use trilby_core::{Api, Ctx, Result, bindings::InvokeFailure};
use trilby_proto::runtime::v1::{InvokeBindingRequest, InvokeBindingResponse};

use crate::codec;

/// The answer, and what the binding said as metadata of the call; it may say something when it fails, too.
pub(crate) async fn invoke(
    api: &Api,
    ctx: &Ctx,
    parts: &Parts,
    message: InvokeBindingRequest,
) -> (Result<InvokeBindingResponse>, HeaderMap) {
    let mut metadata = codec::from_map(message.metadata);
    add_call(&parts.headers, &mut metadata);

    let invoked = api.bindings.invoke(ctx, &message.name, &message.operation, message.data, metadata).await;

    match invoked {
        Ok(InvokeResponse { data, metadata, .. }) => {
            let shown = show(&metadata);
            let answer = InvokeBindingResponse { data: data.unwrap_or_default(), metadata: codec::to_map(metadata) };
            (Ok(answer), shown)
        }
        Err(InvokeFailure { error, metadata }) => (Err(error), show(&metadata)),
    }
}

/// What the binding may know of the call itself; the caller's own entries win, but for the trace.
fn add_call(headers: &HeaderMap, metadata: &mut Metadata) {
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        let name = match name.as_str() {
            reserved if reserved.starts_with("grpc-") => format!("dapr-{reserved}"),
            name => name.to_owned(),
        };
        metadata.entry(name).or_insert_with(|| value.to_owned());
    }
}

/// Metadata as that of the call, with Dapr's prefix; what cannot be said there is left out.
fn show(metadata: &Metadata) -> HeaderMap {
    let entries = metadata.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(format!("metadata.{name}")).ok()?;
        Some((name, HeaderValue::try_from(value).ok()?))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_sees_the_metadata_of_the_call() {
        let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let headers = [header("grpc-timeout", "1S"), header("x-a", "1"), header("x-b", "2")].into_iter().collect();
        let mut metadata = Metadata::from([("x-b".to_owned(), "own".to_owned())]);
        add_call(&headers, &mut metadata);
        let expect = [("dapr-grpc-timeout", "1S"), ("x-a", "1"), ("x-b", "own")];
        assert_eq!(metadata, expect.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
