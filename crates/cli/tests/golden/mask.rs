//! What is volatile in an answer, made equal on both sides before they are compared.

use std::sync::LazyLock;

use regex::Regex;

static VOLATILE: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
    let regex = |pattern| Regex::new(pattern).expect("a regular expression");
    [
        (regex("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
        (regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
        // Redis names a script by its hash and the line that failed.
        (regex(r"script: [0-9a-f]{40}, on @user_script:\d+\."), "<script>"),
        (regex(r"user_script:\d+"), "<line>"),
    ]
});

/// `text` without identifiers, times and script positions.
pub fn mask(text: &str) -> String {
    VOLATILE.iter().fold(text.to_owned(), |text, (regex, word)| regex.replace_all(&text, *word).into_owned())
}
