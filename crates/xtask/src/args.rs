//! What follows a subcommand's name, taken apart by hand: options are removed as they are known, leftovers are errors.

use crate::process::Result;

/// The words after the subcommand, split at the first `--`.
pub(crate) struct Args {
    given: Vec<String>,
    trailing: Vec<String>,
    known: Vec<&'static str>,
}

impl Args {
    pub(crate) fn new(mut words: Vec<String>) -> Self {
        let trailing = match words.iter().position(|word| word == "--") {
            Some(dashes) => words.split_off(dashes).split_off(1),
            None => Vec::new(),
        };
        Self { given: words, trailing, known: Vec::new() }
    }

    /// Takes `name`; true if it was there.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        self.known.push(name);
        let before = self.given.len();
        self.given.retain(|word| word != name);
        self.given.len() < before
    }

    /// Takes every `name VALUE` and `name=VALUE`, in order.
    ///
    /// # Errors
    /// `name` is the last word.
    pub(crate) fn options(&mut self, name: &'static str) -> Result<Vec<String>> {
        self.known.push(name);
        let mut values = Vec::new();
        let mut rest = Vec::new();
        let mut words = std::mem::take(&mut self.given).into_iter();
        while let Some(word) = words.next() {
            if word == name {
                values.push(words.next().ok_or_else(|| format!("{name} needs a value"))?);
            } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                values.push(value.to_owned());
            } else {
                rest.push(word);
            }
        }
        self.given = rest;
        Ok(values)
    }

    /// Takes one `name VALUE`; the last one wins.
    ///
    /// # Errors
    /// As [`Args::options`].
    pub(crate) fn option(&mut self, name: &'static str) -> Result<Option<String>> {
        Ok(self.options(name)?.pop())
    }

    /// Ends parsing; gives the words after `--`, for the program that is run.
    ///
    /// # Errors
    /// A word before `--` that no `flag` or `option` took.
    pub(crate) fn finish(self) -> Result<Vec<String>> {
        match self.given.first() {
            None => Ok(self.trailing),
            Some(word) if self.known.is_empty() => {
                Err(format!("unknown argument `{word}`; this command takes none").into())
            }
            Some(word) => Err(format!("unknown argument `{word}`; known: {}", self.known.join(", ")).into()),
        }
    }

    /// As [`Args::finish`], for a command that runs no other program.
    ///
    /// # Errors
    /// Any word that was not taken, before or after `--`.
    pub(crate) fn finish_without_trailing(mut self) -> Result {
        self.given.append(&mut self.trailing);
        self.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn an_option_is_given_with_a_space_or_an_equals_sign() {
        for line in ["--dir out", "--dir=out"] {
            assert_eq!(args(line).option("--dir").expect("has a value").as_deref(), Some("out"));
        }
    }

    #[test]
    fn words_after_two_dashes_are_left_alone() {
        let mut args = args("--stay -- --stay x");
        assert!(args.flag("--stay"));
        assert_eq!(args.finish().expect("all taken"), ["--stay", "x"]);
    }

    #[test]
    fn an_unknown_word_names_the_known_ones() {
        let mut args = args("--stya");
        args.flag("--stay");
        let error = args.finish().expect_err("a typing error").to_string();
        assert_eq!(error, "unknown argument `--stya`; known: --stay");
    }

    #[test]
    fn an_option_without_a_value_is_an_error() {
        assert!(args("--dir").option("--dir").is_err());
    }
}
