//! What is volatile in an answer, made equal on both sides before they are compared.

use std::sync::LazyLock;

use regex::Regex;

static VOLATILE: LazyLock<[(Regex, &str); 7]> = LazyLock::new(|| {
    let regex = |pattern| Regex::new(pattern).expect("a regular expression");
    [
        (regex("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
        (regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
        (regex(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC"), "<time>"),
        (regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"), "<time>"),
        (regex(r#""(runtimeVersion|runtime_version|daprRuntimeVersion)":"[^"]*""#), "\"$1\":\"<version>\""),
        // Redis says which script failed by its hash, and in which line.
        (regex(r"ERR user_script:\d+: "), ""),
        (regex(r" script: [0-9a-f]{40}, on @user_script:\d+\."), ""),
    ]
});

/// `text` without identifiers, times, versions and the positions of scripts.
pub(crate) fn mask(text: &str) -> String {
    VOLATILE.iter().fold(text.to_owned(), |text, (regex, word)| regex.replace_all(&text, *word).into_owned())
}
