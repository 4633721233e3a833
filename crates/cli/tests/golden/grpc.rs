//! One recorded gRPC call sent to our daprd by reflection, and both answers in a comparable form.

use bytes::{Buf, BufMut, Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions, prost::Message as _};
use serde_json::{Value, json};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{MetadataKey, MetadataValue},
};

use super::{mask::mask, support::Daprd};

/// Calls of APIs that this build does not have yet, by what their names hold.
const NOT_BUILT: [&str; 3] = ["Actor", "Workflow", "Job"];

/// Why a recorded call is not made, if it is not.
pub(crate) fn not_built(request: &Value) -> Option<String> {
    let call = request["call"].as_str()?;
    NOT_BUILT.iter().any(|api| call.contains(api)).then(|| format!("{call} is not built yet"))
}

/// Dapr's messages by name.
pub(crate) struct Messages(DescriptorPool);

impl Messages {
    pub(crate) fn load() -> Self {
        Self(DescriptorPool::decode(trilby_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set"))
    }

    fn method(&self, call: &str) -> (MessageDescriptor, MessageDescriptor) {
        let service = self.0.get_service_by_name("dapr.proto.runtime.v1.Dapr").expect("the Dapr service");
        let method = service.methods().find(|method| method.name() == call).expect("a known call");
        (method.input(), method.output())
    }

    /// Makes the call and returns our answer as text.
    pub(crate) async fn send(&self, daprd: &Daprd, request: &Value) -> String {
        let call = request["call"].as_str().expect("a call");
        let (input, output) = self.method(call);
        let message = match request["message"].get("text").and_then(Value::as_str) {
            Some(text) => DynamicMessage::parse_text_format(input, text).expect("text format"),
            None => DynamicMessage::deserialize(input, &request["message"]).expect("a message"),
        };
        let mut request_message = Request::new(Bytes::from(message.encode_to_vec()));
        for pair in request["metadata"].as_array().expect("metadata") {
            let name = MetadataKey::from_bytes(pair[0].as_str().expect("text").as_bytes()).expect("a key");
            let value = MetadataValue::try_from(pair[1].as_str().expect("text")).expect("a value");
            request_message.metadata_mut().insert(name, value);
        }
        let mut client = Grpc::new(daprd.grpc_channel());
        client.ready().await.expect("a connection");
        let path = format!("/dapr.proto.runtime.v1.Dapr/{call}").parse().expect("a path");
        match client.unary(request_message, path, Raw).await {
            Ok(reply) => {
                let message = DynamicMessage::decode(output, reply.into_inner()).expect("the reply's message");
                render("OK", "", &self.to_json(&message, true), &json!([]))
            }
            Err(status) => render(code_name(&status), status.message(), &json!({}), &self.details(&status)),
        }
    }

    /// The recorded answer in the same form.
    pub(crate) fn recorded(&self, call: &Value, response: &Value) -> String {
        let code = response["code"].as_str().expect("a code");
        if code != "OK" {
            let message = response["message"].as_str().expect("text");
            return render(code, message, &json!({}), &response["details"]);
        }
        let (_, output) = self.method(call["call"].as_str().expect("a call"));
        let message = match response["message"].get("text").and_then(Value::as_str) {
            Some(text) => DynamicMessage::parse_text_format(output, text).expect("text format"),
            None => DynamicMessage::deserialize(output, &response["message"]).expect("a message"),
        };
        render("OK", "", &self.to_json(&message, true), &json!([]))
    }

    fn to_json(&self, message: &DynamicMessage, proto_names: bool) -> Value {
        // An Any in an answer holds the app's bytes and no message, which JSON cannot say; text format can.
        let options = SerializeOptions::new().use_proto_field_name(proto_names);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .unwrap_or_else(|_| Value::String(message.to_text_format()))
    }

    fn details(&self, status: &Status) -> Value {
        let status = trilby_proto::google::rpc::Status::decode(status.details()).expect("status details");
        status
            .details
            .into_iter()
            .map(|any| {
                let name = any.type_url.rsplit('/').next().unwrap_or_default();
                let message = self.0.get_message_by_name(name).expect("a known detail");
                let message = DynamicMessage::decode(message, &*any.value).expect("the detail's message");
                json!({ name.rsplit('.').next().unwrap_or_default(): self.to_json(&message, false) })
            })
            .collect()
    }
}

fn render(code: &str, message: &str, body: &Value, details: &Value) -> String {
    let mut details: Vec<_> = details.as_array().expect("details").iter().map(Value::to_string).collect();
    details.sort();
    mask(&format!("{code} {message:?} {body} [{}]", details.join(", ")))
}

/// gRPC's own name of a status code.
fn code_name(status: &Status) -> &'static str {
    use tonic::Code::*;
    match status.code() {
        Ok => "OK",
        Cancelled => "CANCELLED",
        Unknown => "UNKNOWN",
        InvalidArgument => "INVALID_ARGUMENT",
        DeadlineExceeded => "DEADLINE_EXCEEDED",
        NotFound => "NOT_FOUND",
        AlreadyExists => "ALREADY_EXISTS",
        PermissionDenied => "PERMISSION_DENIED",
        ResourceExhausted => "RESOURCE_EXHAUSTED",
        FailedPrecondition => "FAILED_PRECONDITION",
        Aborted => "ABORTED",
        OutOfRange => "OUT_OF_RANGE",
        Unimplemented => "UNIMPLEMENTED",
        Internal => "INTERNAL",
        Unavailable => "UNAVAILABLE",
        DataLoss => "DATA_LOSS",
        Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Messages that are encoded already.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
