//! The cryptography API.
//!
//! Documents are answered whole, as Dapr answers them: what turns out to be broken at its end is then an error and not
//! half a document. The body limit bounds what that takes.

use http::{HeaderValue, header::CONTENT_TYPE};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use trilby_component::properties::is_truthy;
use trilby_core::{
    Body, Code, Error, Response, Result,
    body::CollectError,
    crypto::{DecryptOptions, EncryptOptions},
};

use crate::codec::{self, Call};

const KEY_NAME: &str = "dapr-key-name";
const KEY_WRAP_ALGORITHM: &str = "dapr-key-wrap-algorithm";

/// `PUT v1.0-alpha1/crypto/{name}/encrypt`
pub(crate) async fn encrypt(call: &Call<'_>, body: Body) -> Result<Response> {
    let crypto = &call.door.api.crypto;
    crypto.require(&call.store)?;
    let options = EncryptOptions {
        key_name: required(call, KEY_NAME)?,
        key_wrap_algorithm: required(call, KEY_WRAP_ALGORITHM)?,
        cipher: header(call, "dapr-data-encryption-cipher"),
        omit_decryption_key_name: is_truthy(&header(call, "dapr-omit-decryption-key-name")),
        decryption_key_name: header(call, "dapr-decryption-key-name"),
    };
    let plaintext = limited(call, body).await?;

    let document = crypto.encrypt(call.ctx, &call.store, options, plaintext).await?;

    respond(document).await
}

/// `PUT v1.0-alpha1/crypto/{name}/decrypt`
pub(crate) async fn decrypt(call: &Call<'_>, body: Body) -> Result<Response> {
    let crypto = &call.door.api.crypto;
    crypto.require(&call.store)?;
    let options = DecryptOptions { key_name: header(call, KEY_NAME) };
    let document = limited(call, body).await?;

    let plaintext = crypto.decrypt(call.ctx, &call.store, options, document).await?;

    respond(plaintext).await
}

/// `POST v1.0-alpha1/subtlecrypto/{name}/{operation}`: Dapr has these, and its builds leave them out. Programs that embed
/// this runtime, and guests, have them.
pub(crate) async fn subtle(call: &Call<'_>, body: Body) -> Result<Response> {
    #[derive(Default, Deserialize)]
    struct Anything {}

    let text = call.json_body(body).await?;
    let Anything {} = codec::decode_proto(&text)?;
    Err(Error::new(Code::ApiUnimplemented, "this API is currently not implemented"))
}

fn header(call: &Call<'_>, name: &str) -> String {
    let value = call.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn required(call: &Call<'_>, name: &str) -> Result<String> {
    let value = header(call, name);
    if value.is_empty() {
        return Err(Error::new(Code::BadRequest, format!("invalid request: missing header '{name}'")));
    }
    Ok(value)
}

async fn limited(call: &Call<'_>, body: Body) -> Result<Body> {
    codec::limit(body, call.door.options.max_body_bytes).await.map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::new(Code::CryptoStream, "stream too large")
}

async fn respond(output: Body) -> Result<Response> {
    let output = output.collect(usize::MAX).await.map_err(|error| match error {
        CollectError::Broken(cause) if cause.is::<LengthLimitError>() => too_large(),
        CollectError::Broken(cause) => match cause.downcast::<Error>() {
            Ok(error) => *error,
            Err(cause) => Error::new(Code::CryptoStream, cause.to_string()),
        },
        CollectError::TooLarge(_) => too_large(),
    })?;
    let mut response = Response::new(output.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
