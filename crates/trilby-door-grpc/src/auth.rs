//! The API token: who may use this door at all.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tonic::Status;

use crate::error;

/// Carries the token, towards this door and towards an app.
pub(crate) const API_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");

/// A token that callers must send.
pub(crate) struct Token(Box<[u8]>);

impl Token {
    /// An empty token is none, as with daprd.
    pub(crate) fn new(token: &str) -> Option<Self> {
        (!token.is_empty()).then(|| Self(token.as_bytes().into()))
    }

    /// Checks that the metadata carries this token, and takes it out, so that nothing behind this door sees it.
    pub(crate) fn admit(&self, metadata: &mut HeaderMap) -> Result<(), Status> {
        let refused = |text| Err(error::from_http(StatusCode::UNAUTHORIZED, text));
        match metadata.remove(API_TOKEN) {
            None => refused("missing api token in request metadata"),
            Some(sent) if !self.equals(&sent) => refused("authentication error: api token mismatch"),
            Some(_) => Ok(()),
        }
    }

    /// Takes as long for a wrong token as for the right one.
    fn equals(&self, sent: &HeaderValue) -> bool {
        let sent = sent.as_bytes();
        let differ = |ours: &[u8]| ours.iter().zip(sent).fold(0, |differ, (ours, theirs)| differ | (ours ^ theirs));
        sent.len() == self.0.len() && differ(&self.0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_admits_and_it_is_taken_out() {
        let token = Token::new("secret").expect("not empty");
        for (sent, admitted) in [("secret", true), ("Secret", false), ("secre", false), ("secrets", false), ("", false)]
        {
            let mut metadata = HeaderMap::from_iter([(API_TOKEN, HeaderValue::from_static(sent))]);
            assert_eq!(token.admit(&mut metadata).is_ok(), admitted, "{sent}");
            assert!(metadata.is_empty());
        }
        assert_eq!(token.admit(&mut HeaderMap::new()).expect_err("none").code(), tonic::Code::Unauthenticated);
        assert!(Token::new("").is_none());
    }
}
