//! Command lines as Go programs take them: `-name value`, `--name value`, `--name=value`, and booleans that stand alone.

use std::collections::BTreeMap;

use crate::suggest;

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Bool,
    /// One text; the last one counts.
    Text,
    /// Texts, separated by commas or given by repeating the flag.
    List,
    /// A whole number, possibly negative.
    Int,
    /// A duration such as `30s`.
    Duration,
}

/// A flag that a program knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Without dashes.
    pub name: &'static str,
    pub takes: Takes,
}

/// The flags that were given, by name.
#[derive(Debug, Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// What is no flag and no flag's value.
    pub rest: Vec<String>,
}

/// A command line that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown flag: --{name}{}", suggest::phrase(.nearest.as_deref().map(|name| format!("--{name}"))))]
    Unknown { name: String, nearest: Option<String> },
    #[error("flag needs an argument: --{0}")]
    NoValue(&'static str),
    #[error("invalid argument {found:?} for \"--{name}\" flag: {expected}")]
    Invalid { name: &'static str, found: String, expected: &'static str },
    /// Not an error: whoever asks for help gets it.
    #[error("help requested")]
    Help,
}

/// Reads a command line, the program's own name left out.
///
/// # Errors
/// For a flag that is not in `flags`, a flag without its value, or a value that is not what its flag takes.
pub(crate) fn parse(flags: &[Flag], args: impl IntoIterator<Item = String>) -> Result<Given, UsageError> {
    let mut given = Given::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            given.rest.extend(args);
            break;
        }
        // A dash alone, or before a single character, is no flag: daprd has none so short.
        let Some(text) =
            arg.strip_prefix('-').map(|text| text.strip_prefix('-').unwrap_or(text)).filter(|t| !t.is_empty())
        else {
            given.rest.push(arg);
            continue;
        };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        if matches!(name, "help" | "h") {
            return Err(UsageError::Help);
        }
        let flag = flags.iter().find(|flag| flag.name == name).ok_or_else(|| unknown(flags, name))?;
        let value = match (value, flag.takes) {
            (Some(value), _) => value,
            (None, Takes::Bool) => "true".to_owned(),
            (None, _) => args.next().ok_or(UsageError::NoValue(flag.name))?,
        };
        check(*flag, &value)?;
        given.values.entry(flag.name).or_default().push(value);
    }
    Ok(given)
}

impl Given {
    /// The last value of a flag, if it was given.
    #[must_use]
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }

    /// All values of a list, in order.
    #[must_use]
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let given = self.values.get(name).into_iter().flatten();
        given.flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// A boolean, if it was given.
    #[must_use]
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(parse_bool)
    }

    /// A whole number, if it was given.
    #[must_use]
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| text.parse().ok())
    }
}

fn unknown(flags: &[Flag], name: &str) -> UsageError {
    let nearest = suggest::nearest(name, flags.iter().map(|flag| flag.name)).map(str::to_owned);
    UsageError::Unknown { name: name.to_owned(), nearest }
}

fn check(flag: Flag, value: &str) -> Result<(), UsageError> {
    let (is_valid, expected) = match flag.takes {
        Takes::Text | Takes::List => return Ok(()),
        Takes::Bool => (parse_bool(value).is_some(), "expected true or false"),
        Takes::Int => (value.parse::<i64>().is_ok(), "expected a whole number"),
        Takes::Duration => {
            (trilby::component::properties::duration::parse(value).is_some(), "expected a duration such as 30s")
        }
    };
    if is_valid { Ok(()) } else { Err(UsageError::Invalid { name: flag.name, found: value.to_owned(), expected }) }
}

/// The spellings that Go takes.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 5] = [
        Flag { name: "app-id", takes: Takes::Text },
        Flag { name: "enable-mtls", takes: Takes::Bool },
        Flag { name: "config", takes: Takes::List },
        Flag { name: "app-max-concurrency", takes: Takes::Int },
        Flag { name: "hot-reload-reconcile-interval", takes: Takes::Duration },
    ];

    fn parsed(line: &str) -> Result<Given, UsageError> {
        parse(&FLAGS, line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
    }

    #[test]
    fn a_value_follows_or_is_joined() {
        for line in ["-app-id x", "--app-id x", "--app-id=x", "-app-id=x", "--app-id y --app-id x"] {
            assert_eq!(parsed(line).expect(line).text("app-id"), Some("x"), "{line}");
        }
        assert_eq!(parsed("--app-id=a=b").expect("valid").text("app-id"), Some("a=b"));
        assert_eq!(parsed("--app-max-concurrency -1").expect("valid").int("app-max-concurrency"), Some(-1));
        assert_eq!(parsed("--app-id=").expect("valid").text("app-id"), Some(""));
    }

    #[test]
    fn a_boolean_needs_no_value_and_takes_none_from_behind() {
        for (line, expect) in [
            ("", None),
            ("--enable-mtls", Some(true)),
            ("-enable-mtls=false", Some(false)),
            ("--enable-mtls=T", Some(true)),
            ("--enable-mtls false", Some(true)),
        ] {
            assert_eq!(parsed(line).expect(line).bool("enable-mtls"), expect, "{line}");
        }
        assert_eq!(parsed("--enable-mtls false").expect("valid").rest, ["false"]);
    }

    #[test]
    fn a_list_is_commas_or_repetition() {
        assert_eq!(parsed("--config a,b -config=c").expect("valid").list("config"), ["a", "b", "c"]);
    }

    #[test]
    fn errors_name_the_flag() {
        for (line, expect) in [
            ("--app-idd x", "unknown flag: --app-idd; did you mean --app-id?"),
            ("--zzz", "unknown flag: --zzz"),
            ("--app-id", "flag needs an argument: --app-id"),
            ("--enable-mtls=yes", "invalid argument \"yes\" for \"--enable-mtls\" flag: expected true or false"),
            (
                "--app-max-concurrency x",
                "invalid argument \"x\" for \"--app-max-concurrency\" flag: expected a whole number",
            ),
            (
                "--hot-reload-reconcile-interval 5x",
                "invalid argument \"5x\" for \"--hot-reload-reconcile-interval\" flag: expected a duration such as 30s",
            ),
        ] {
            assert_eq!(parsed(line).expect_err(line).to_string(), expect);
        }
        assert_eq!(parsed("--help").err(), Some(UsageError::Help));
    }
}
