//! Server reflection, so that a client can list and call what is here without having its description.

use http::request::Parts;
use tonic_reflection::server::Builder;
use tower_service::Service as _;
use trilby_core::Body;

use crate::unary::{Incoming, Reply};

const V1: &str = "/grpc.reflection.v1.ServerReflection/";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

pub(crate) fn serves(parts: &Parts) -> bool {
    let path = parts.uri.path();
    path.starts_with(V1) || path.starts_with(V1_ALPHA)
}

/// Answers a call of either version. Its index is made for each call: reflection is rare, and an index for each app
/// would stay in memory for good.
pub(crate) async fn answer<B: Incoming>(parts: Parts, body: B) -> http::Response<Reply> {
    let is_v1 = parts.uri.path().starts_with(V1);
    let request = http::Request::from_parts(parts, body);
    let valid = "the descriptors come from this build";
    let answered = if is_v1 {
        builder().build_v1().expect(valid).call(request).await
    } else {
        builder().build_v1alpha().expect(valid).call(request).await
    };
    let Ok(response) = answered;
    response.map(|body| Reply::Stream(Body::stream(body)))
}

/// The descriptors also hold the services that an app implements; those are not here and not listed.
fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(trilby_proto::FILE_DESCRIPTOR_SET)
        .with_service_name("dapr.proto.runtime.v1.Dapr")
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .with_service_name("grpc.reflection.v1alpha.ServerReflection")
}
