//! Cross-origin requests of browsers, answered as daprd's middleware does.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Methods that a page may use.
const METHODS: [Method; 6] = [Method::HEAD, Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Origins that may call.
pub(crate) struct Cors {
    /// In lower case; one `*` stands for any text.
    origins: Vec<String>,
}

impl Cors {
    /// No origins, no CORS: browsers then refuse, and nothing is added to any answer.
    pub(crate) fn new(origins: &[String]) -> Option<Self> {
        let origins: Vec<_> = origins.iter().map(|origin| origin.trim().to_lowercase()).collect();
        (!origins.is_empty()).then_some(Self { origins })
    }

    /// What is added to the answer of a request with these headers. Without the allowing header a browser refuses.
    pub(crate) fn headers(&self, method: &Method, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let mut reply = vec![(header::VARY, HeaderValue::from_static("Origin"))];
        let preflight = is_preflight(method, request);
        if preflight {
            reply.push((header::VARY, HeaderValue::from_static("Access-Control-Request-Method")));
            reply.push((header::VARY, HeaderValue::from_static("Access-Control-Request-Headers")));
        }
        let wanted = if preflight { request.get(header::ACCESS_CONTROL_REQUEST_METHOD) } else { None };
        let method_allowed =
            wanted.map_or_else(|| is_allowed(method.as_str()), |wanted| wanted.to_str().is_ok_and(is_allowed));
        let Some(origin) = request.get(header::ORIGIN).filter(|origin| method_allowed && self.admits(origin)) else {
            return reply;
        };

        let any = self.origins.iter().any(|pattern| pattern == "*");
        let origin = if any { HeaderValue::from_static("*") } else { origin.clone() };
        reply.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin));
        if let Some(wanted) = wanted {
            reply.push((header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone()));
            if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                reply.push((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
            }
        }
        reply
    }

    fn admits(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str().map(str::to_lowercase) else { return false };
        self.origins.iter().any(|pattern| match pattern.split_once('*') {
            None => *pattern == origin,
            Some((start, end)) => {
                origin.len() >= start.len() + end.len() && origin.starts_with(start) && origin.ends_with(end)
            }
        })
    }
}

/// Whether a browser asks for permission. Such a request goes no further, whatever its path and token.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn is_allowed(method: &str) -> bool {
    method == Method::OPTIONS || METHODS.iter().any(|allowed| allowed.as_str().eq_ignore_ascii_case(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str], method: Method, request: &[(&'static str, &'static str)]) -> Option<String> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let request = request
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let reply = Cors::new(&patterns).expect("patterns").headers(&method, &request);
        let found = reply.iter().find(|(name, _)| name == header::ACCESS_CONTROL_ALLOW_ORIGIN);
        found.map(|(_, value)| value.to_str().expect("text").to_owned())
    }

    #[test]
    fn origins_match_exactly_or_around_a_star() {
        let get = |patterns: &[&str], origin| allowed(patterns, Method::GET, &[("origin", origin)]);
        assert_eq!(get(&["*"], "https://a.b"), Some("*".into()));
        assert_eq!(get(&["https://A.b"], "https://a.b"), Some("https://a.b".into()));
        assert_eq!(get(&["https://*.b"], "https://a.b"), Some("https://a.b".into()));
        assert_eq!(get(&["https://*.b"], "https://b"), None);
        assert_eq!(get(&["https://a.b"], "https://evil.b"), None);
        assert_eq!(allowed(&["*"], Method::GET, &[]), None);
    }

    #[test]
    fn a_preflight_names_the_method_that_follows() {
        let ask = |method| {
            allowed(&["*"], Method::OPTIONS, &[("origin", "https://a"), ("access-control-request-method", method)])
        };
        assert_eq!(ask("PATCH"), Some("*".into()));
        assert_eq!(ask("CONNECT"), None);
        assert!(Cors::new(&[]).is_none());
    }
}
