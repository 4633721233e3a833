//! Personal data taken out of a text: what looks like an address, a card, a phone number and so on becomes its kind.
//!
//! The patterns and the way in which matches that overlap are settled are those of Dapr's scrubber, peculiarities
//! included, since people tune their prompts to what comes out.

use std::sync::LazyLock;

use regex::Regex;

/// One kind of data, in the order in which Dapr looks for them.
struct Kind {
    placeholder: &'static str,
    patterns: &'static [&'static str],
}

const KINDS: [Kind; 11] = [
    Kind { placeholder: "<STREET_ADDRESS>", patterns: &[STREET_ADDRESS] },
    Kind { placeholder: "<CREDIT_CARD>", patterns: &["(?:(?:[0-9]{4}[- ]?){3}[0-9]{4}|[0-9]{15,16})"] },
    Kind { placeholder: "<PHONE_NUMBER>", patterns: &[PHONE_WITH_EXTENSION, PHONE] },
    Kind { placeholder: "<EMAIL_ADDRESS>", patterns: &[EMAIL] },
    Kind { placeholder: "<IP>", patterns: &[IP] },
    Kind { placeholder: "<ZIP_CODE>", patterns: &[r"(?-u:\b)[0-9]{5}(?:[-\t\n\x0C\r ][0-9]{4})?(?-u:\b)"] },
    Kind { placeholder: "<PO_BOX>", patterns: &[r"(?i-u)P\.? ?O\.? Box [0-9]+"] },
    Kind { placeholder: "<US_SSN>", patterns: &["[0-9]{3}-[0-9]{2}-[0-9]{4}"] },
    Kind { placeholder: "<ISBN>", patterns: &["(?:[0-9]-?){9}[0-9xX]", "(?:[0-9]-?){12}[0-9xX]"] },
    Kind { placeholder: "<MAC_ADDRESS>", patterns: &["(?:[a-fA-F0-9]{2}[:-]){5}[a-fA-F0-9]{2}"] },
    Kind { placeholder: "<IBAN>", patterns: &["[A-Z]{2}[0-9]{2}[A-Z0-9]{4}[0-9]{7}(?:[A-Z0-9]?){0,16}"] },
];

const STREET_ADDRESS: &str = concat!(
    r"(?i-u)[0-9]{1,4} [A-Za-z0-9_\t\n\x0C\r ]{1,20}(?:street|st|avenue|ave|road|rd|highway|hwy|square|sq|trail|trl|",
    r"drive|dr|court|ct|park|parkway|pkwy|circle|cir|boulevard|blvd)(?u-i:[^A-Za-z0-9_]?)",
);

// The slashes at both ends are there by mistake, and part of what is looked for.
const PHONE: &str = concat!(
    r"/(?:(?:\+?[0-9]{1,3}[-.\t\n\x0C\r *]?)?(?:[0-9][\t\n\x0C\r ]?){8,11})",
    r"|(?:(?:\+?[0-9]{1,3}[-.\t\n\x0C\r *]?)?(?:\(?[0-9]{2,3}\)?[-.\t\n\x0C\r *]?)?",
    r"[0-9]{2,3}[-.\t\n\x0C\r *]?[0-9]{2,6})",
    r"|(?:(?:(?:\(\+?[0-9]{1,2}\))|(?:\+?[0-9]{1,2}))[\t\n\x0C\r ]*[0-9]{2}[\t\n\x0C\r ]*[0-9]{3}[\t\n\x0C\r ]*",
    r"[0-9]{4})/gm",
);

const PHONE_WITH_EXTENSION: &str = concat!(
    r"(?i-u)(?:(?:\+?1[\t\n\x0C\r ]*(?:[.-][\t\n\x0C\r ]*)?)?",
    r"(?:\([\t\n\x0C\r ]*(?:[2-9]1[02-9]|[2-9][02-8]1|[2-9][02-8][02-9])[\t\n\x0C\r ]*\)",
    r"|(?:[2-9]1[02-9]|[2-9][02-8]1|[2-9][02-8][02-9]))[\t\n\x0C\r ]*(?:[.-][\t\n\x0C\r ]*)?)?",
    r"(?:[2-9]1[02-9]|[2-9][02-9]1|[2-9][02-9]{2})[\t\n\x0C\r ]*(?:[.-][\t\n\x0C\r ]*)?[0-9]{4}",
    r"[\t\n\x0C\r ]*(?:#|x\.?|ext\.?|extension)[\t\n\x0C\r ]*(?:[0-9]+)?",
);

const EMAIL: &str = concat!(
    r"(?i-u)[A-Za-z0-9!#$%&'*+/=?^_{|.}~-]+",
    r"@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
);

/// A byte of an address in an IPv6 address.
macro_rules! v4 {
    () => {
        r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}"
    };
}

/// Groups of four hexadecimal digits at the start of an IPv6 address.
macro_rules! groups {
    ($count:literal) => {
        concat!("(?:[0-9A-Fa-f]{1,4}:){", $count, "}")
    };
}

const IP: &str = concat!(
    r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)|",
    "(?:",
    "(?:",
    groups!(7),
    "(?:[0-9A-Fa-f]{1,4}|:))",
    "|(?:",
    groups!(6),
    "(?::[0-9A-Fa-f]{1,4}|(?:",
    v4!(),
    ")|:))",
    "|(?:",
    groups!(5),
    "(?:(?:(?::[0-9A-Fa-f]{1,4}){1,2})|:(?:",
    v4!(),
    ")|:))",
    "|(?:",
    groups!(4),
    "(?:(?:(?::[0-9A-Fa-f]{1,4}){1,3})|(?:(?::[0-9A-Fa-f]{1,4})?:(?:",
    v4!(),
    "))|:))",
    "|(?:",
    groups!(3),
    "(?:(?:(?::[0-9A-Fa-f]{1,4}){1,4})|(?:(?::[0-9A-Fa-f]{1,4}){0,2}:(?:",
    v4!(),
    "))|:))",
    "|(?:",
    groups!(2),
    "(?:(?:(?::[0-9A-Fa-f]{1,4}){1,5})|(?:(?::[0-9A-Fa-f]{1,4}){0,3}:(?:",
    v4!(),
    "))|:))",
    "|(?:",
    groups!(1),
    "(?:(?:(?::[0-9A-Fa-f]{1,4}){1,6})|(?:(?::[0-9A-Fa-f]{1,4}){0,4}:(?:",
    v4!(),
    "))|:))",
    "|(?::(?:(?:(?::[0-9A-Fa-f]{1,4}){1,7})|(?:(?::[0-9A-Fa-f]{1,4}){0,5}:(?:",
    v4!(),
    "))|:))",
    r")(?:%.+)?[\t\n\x0C\r ]*",
);

/// Links and addresses of repositories are left as they are, whatever is in them.
const IGNORED: [&str; 2] = [
    concat!(
        r"(?:https?://)(?:[a-z0-9.\-]+|www|[a-z0-9.\-])[.]",
        r"(?:[^\t\n\x0C\r ()<>]+|\((?:[^\t\n\x0C\r ()<>]+|(?:\([^\t\n\x0C\r ()<>]+\)))*\))+",
        r"(?:\((?:[^\t\n\x0C\r ()<>]+|(?:\([^\t\n\x0C\r ()<>]+\)))*\)|",
        r#"[^\t\n\x0C\r !()\[\]{};:'".,<>?])"#,
    ),
    r"(?:(?:git|ssh|https?)|git@[A-Za-z0-9_.]+):(?://)?[A-Za-z0-9_.@:/\-~]+(?:\.git)/?",
];

struct Scrubber {
    kinds: Vec<(Regex, &'static str)>,
    ignored: Vec<(Regex, &'static str)>,
}

static SCRUBBER: LazyLock<Scrubber> = LazyLock::new(|| {
    let compile = |pattern: &str| Regex::new(pattern).expect("the patterns are constants, and a test compiles them");
    let kinds = KINDS.iter().flat_map(|kind| kind.patterns.iter().map(|pattern| (compile(pattern), kind.placeholder)));
    Scrubber { kinds: kinds.collect(), ignored: IGNORED.iter().map(|pattern| (compile(pattern), "")).collect() }
});

/// Something that was found.
#[derive(Clone, Copy)]
struct Found {
    start: usize,
    end: usize,
    placeholder: &'static str,
}

/// The text with a placeholder for each piece of personal data.
pub(super) fn scrub(text: &str) -> String {
    let mut found = without_overlaps(find(&SCRUBBER.kinds, text));
    found = outside(&found, &find(&SCRUBBER.ignored, text));
    replace(text, &found)
}

/// All matches, by where they begin, and the longer ones first. Of two that are equal the one that was looked for
/// later is first. So Go's sort leaves them as long as they are few, which is all that Dapr's comparison of them allows
/// to say.
fn find(patterns: &[(Regex, &'static str)], text: &str) -> Vec<Found> {
    let mut found: Vec<_> = patterns
        .iter()
        .flat_map(|(regex, placeholder)| {
            regex.find_iter(text).map(|found| Found { start: found.start(), end: found.end(), placeholder })
        })
        .collect();
    found.reverse();
    found.sort_by_key(|found| (found.start, usize::MAX - found.end));
    found
}

/// Drops what is inside the one before it, and cuts what only overlaps. The one before it counts even if it was
/// dropped itself.
fn without_overlaps(mut found: Vec<Found>) -> Vec<Found> {
    let mut kept: Vec<Found> = found.first().copied().into_iter().collect();
    for at in 1..found.len() {
        let before = found[at - 1];
        if found[at].start <= before.end {
            if before.end >= found[at].end {
                continue;
            }
            found[at].start = before.end + 1;
        }
        kept.push(found[at]);
    }
    kept
}

/// What does not touch an ignored place.
fn outside(found: &[Found], ignored: &[Found]) -> Vec<Found> {
    let mut rest = found;
    let mut kept = Vec::with_capacity(found.len());
    for ignored in ignored {
        let before = rest.iter().take_while(|found| found.end < ignored.start).count();
        kept.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        let touching = rest.iter().take_while(|found| found.start <= ignored.end).count();
        rest = &rest[touching..];
    }
    kept.extend_from_slice(rest);
    kept
}

/// Replaces one after the other. One that begins before the end of the last is not reached, nor is what comes after.
fn replace(text: &str, found: &[Found]) -> String {
    let mut replaced = Vec::with_capacity(text.len());
    let mut at = 0;
    for found in found {
        if found.start < at || found.start >= text.len() {
            break;
        }
        replaced.extend_from_slice(&text.as_bytes()[at..found.start]);
        replaced.extend_from_slice(found.placeholder.as_bytes());
        at = found.end;
    }
    replaced.extend_from_slice(&text.as_bytes()[at..]);
    // A cut may have gone through the middle of a character.
    String::from_utf8(replaced).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_becomes_its_placeholder_as_recorded_from_dapr() {
        for (text, expect) in [
            ("mail bob@example.com", "mail <EMAIL_ADDRESS>"),
            ("call 555-1234 a@b.co", "call <PHONE_NUMBER> <EMAIL_ADDRESS>"),
            ("my phone number is +2222222222", "my phone number is <PHONE_NUMBER>"),
            ("My email is 9144520109@gmail.com", "My email is <EMAIL_ADDRESS>"),
            (
                "My SSN is488-23-3729. Details can be found at https://aavaz.ai/emp/488-23-3729",
                "My SSN is<US_SSN>. Details can be found at https://aavaz.ai/emp/488-23-3729",
            ),
            ("lives at 221 Baker Street, London 90210", "lives at <STREET_ADDRESS> London <ZIP_CODE>"),
            ("mac 00:1A:2B:3C:4D:5E ip fe80::1 v4 10.8.9.1 end", "mac <MAC_ADDRESS> ip <IP>v4 <IP> end"),
            ("PO Box 123 and P.O. Box 77", "<PO_BOX> and <PO_BOX>"),
            (
                "git@github.com:dapr/dapr.git 1234567890 https://x.io/12345",
                "git@github.com:dapr/dapr.git <ISBN> https://x.io/12345",
            ),
            ("€5 ü 12345 €", "€5 ü <ZIP_CODE> €"),
            ("call 555-1234 x89", "call <PHONE_NUMBER>"),
            ("123-45-6789 12345-6789", "<US_SSN> <ZIP_CODE>"),
            ("", ""),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(scrub(text), expect, "{text}");
        }
    }

    #[test]
    fn what_overlaps_is_settled_as_dapr_settles_it() {
        for (text, expect) in [
            ("pay 4111 1111 1111 1111 or 378282246310005 now", "pay <CREDIT_CARD> or 378282246310005 now"),
            ("IBAN DE89370400440532013000 isbn 978-3-16-148410-0", "IBAN <IBAN> isbn 978-3-16-148410-0"),
            ("+1 (555) 123-4567 ext 89, 12345, room 42", "<PHONE_NUMBER> ext 89, <ZIP_CODE>, room 42"),
        ] {
            assert_eq!(scrub(text), expect, "{text}");
        }
    }
}
