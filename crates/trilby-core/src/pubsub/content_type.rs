//! What a media type says about data, as Dapr reads it: without case, and without its parameters.

/// Whether the data is a whole CloudEvent.
pub(super) fn is_cloud_event(content_type: &str) -> bool {
    is(content_type, "application/cloudevents+json")
}

/// Whether the data is JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    is(content_type, "application/json")
}

/// Whether the data is bytes.
pub(super) fn is_binary(content_type: &str) -> bool {
    is(content_type, "application/octet-stream")
}

/// Whether the data is a CloudEvent in protobuf. Unlike Dapr this goes by the media type alone, also for
/// `application/protobuf`: bytes that are no CloudEvent are bytes all the same, and no text.
pub(super) fn is_protobuf(content_type: &str) -> bool {
    is(content_type, "application/cloudevents+protobuf") || is(content_type, "application/protobuf")
}

fn is(content_type: &str, expected: &str) -> bool {
    content_type.split(';').next().is_some_and(|essence| essence.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        assert!(is_json("Application/JSON; charset=utf-8") && !is_json("application/json-seq"));
        assert!(is_cloud_event("application/cloudevents+json;x"));
        assert!(is_binary("application/octet-stream") && !is_binary(""));
    }
}
