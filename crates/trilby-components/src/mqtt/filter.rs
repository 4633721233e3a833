//! Which topics a topic filter means.

/// Whether `topic` is among those that `filter` asks for. `+` stands for one level, `#` at the end for any number of
/// them; `$share/GROUP/` in front is for the server and means nothing here.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let mut wanted = without_group(filter).split('/');
    let mut levels = topic.split('/');
    loop {
        match (wanted.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(want), Some(level)) if want == level => {}
            _ => return false,
        }
    }
}

/// What a server with shared subscriptions compares topics with.
pub(super) fn without_group(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_levels() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("+", "a/b", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b/c", true),
            ("a#", "ab", false),
            ("$share/group/a/+", "a/b", true),
            ("$share/group/a", "group/a", false),
            ("+/b", "/b", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
