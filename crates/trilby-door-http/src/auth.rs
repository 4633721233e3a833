//! The API token: who may use this door at all.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Carries the token, towards this door and towards an app.
pub(crate) const API_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");

/// A token that callers must send.
pub(crate) struct Token(Box<[u8]>);

impl Token {
    /// An empty token is none, as with daprd.
    pub(crate) fn new(token: &str) -> Option<Self> {
        (!token.is_empty()).then(|| Self(token.as_bytes().into()))
    }

    /// Whether the headers carry this token. It is taken out either way, so that nothing behind this door sees it.
    pub(crate) fn admit(&self, headers: &mut HeaderMap) -> bool {
        headers.remove(API_TOKEN).is_some_and(|sent| self.equals(&sent))
    }

    /// Takes as long for a wrong token as for the right one.
    fn equals(&self, sent: &HeaderValue) -> bool {
        let sent = sent.as_bytes();
        sent.len() == self.0.len()
            && self.0.iter().zip(sent).fold(0, |differ, (ours, theirs)| differ | (ours ^ theirs)) == 0
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
            let mut headers = HeaderMap::from_iter([(API_TOKEN, HeaderValue::from_static(sent))]);
            assert_eq!(token.admit(&mut headers), admitted, "{sent}");
            assert!(headers.is_empty());
        }
        assert!(!token.admit(&mut HeaderMap::new()));
        assert!(Token::new("").is_none());
    }
}
