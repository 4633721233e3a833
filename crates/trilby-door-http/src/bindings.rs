//! The bindings API.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use trilby_component::Metadata;
use trilby_core::{Body, Response, Result, bindings::InvokeFailure};

use crate::{
    codec::{self, Call, Expected},
    error,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Request<'a> {
    #[serde(alias = "Operation")]
    operation: Option<String>,
    #[serde(alias = "Data", borrow)]
    data: Option<&'a RawValue>,
    #[serde(alias = "Metadata")]
    metadata: Option<Metadata>,
}

/// `POST|PUT v1.0/bindings/{name}`
pub(crate) async fn invoke(call: &Call<'_>, body: Body) -> Result<Response> {
    let body = call.json_body(body).await?;
    let expected = Expected { opening: b'{', go_type: "http.OutputBindingRequest" };
    let Request { operation, data, metadata } = codec::decode(&body, expected).map_err(codec::undecodable)?;
    let (operation, data) = (operation.unwrap_or_default(), compact(&body, data));

    let bindings = &call.door.api.bindings;
    let invoked = bindings.invoke(call.ctx, &call.store, &operation, data, metadata.unwrap_or_default()).await;

    let (mut response, metadata) = match invoked {
        Ok(answer) => (answer.data.map_or_else(codec::no_content, codec::json), answer.metadata),
        Err(InvokeFailure { error, metadata }) => {
            call.door.api.errors.record(error.code());
            (error::respond(&error), metadata)
        }
    };
    show(metadata, &mut response);
    Ok(response)
}

/// A value as Go's encoder would write it again; mostly that is how the caller wrote it, and not copied then.
fn compact(body: &Bytes, value: Option<&RawValue>) -> Bytes {
    let Some(value) = value else { return Bytes::from_static(b"null") };
    let text = value.get().as_bytes();
    // The last is the first byte of the two Unicode line ends.
    let may_differ = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'<' | b'>' | b'&' | 0xE2);
    if text.iter().any(may_differ) { codec::encode(&value).into() } else { body.slice_ref(text) }
}

/// Shows metadata as headers, line ends as spaces; what is no header even so is left out.
fn show(metadata: Metadata, response: &mut Response) {
    for (name, value) in metadata {
        let name = HeaderName::try_from(format!("metadata.{name}"));
        let value = HeaderValue::try_from(value.replace(['\r', '\n'], " ").trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_as_go_would_write_it() {
        for (text, expect) in [
            ("{}", "null"),
            (r#"{"data":null}"#, "null"),
            (r#"{"data":"a"}"#, r#""a""#),
            (r#"{"data": { "b" : [1, 2.50], "a": "x y" } }"#, r#"{"b":[1,2.50],"a":"x y"}"#),
            (r#"{"data":"<é€>"}"#, r#""\u003cé€\u003e""#),
        ] {
            let body = Bytes::from_static(text.as_bytes());
            let request: Request<'_> = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(compact(&body, request.data), expect, "{text}");
        }
    }

    #[test]
    fn data_that_is_compact_is_not_copied() {
        let body = Bytes::from_static(br#"{"data":{"a":[1,"b"]}}"#);
        let request: Request<'_> = serde_json::from_slice(&body).expect("JSON");
        assert!(body.as_ptr_range().contains(&compact(&body, request.data).as_ptr()));
    }

    #[test]
    fn metadata_that_is_no_header_is_left_out() {
        let mut response = codec::no_content();
        let pairs = [("sql", "select\n 1\n"), ("bad name", "x"), ("statusCode", "200"), ("nul", "\0")];
        show(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), &mut response);
        let shown: Vec<_> = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(shown, [("metadata.sql", &b"select  1"[..]), ("metadata.statuscode", b"200")]);
    }
}
