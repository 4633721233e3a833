//! Durations as Dapr's Redis components read them: a bare number counts milliseconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};
use trilby_component::properties::duration;

/// For `#[serde(with = "interval")]` on a config field.
///
/// # Errors
/// If the text is not a duration.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A duration for which 0 is the default and -1 none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Interval {
    #[default]
    Default,
    Of(Duration),
    Never,
}

impl Interval {
    /// `millis` stand for the default; `None` means no limit.
    pub(super) fn or_default(self, millis: u64) -> Option<Duration> {
        match self {
            Self::Default => Some(Duration::from_millis(millis)),
            Self::Of(duration) => Some(duration),
            Self::Never => None,
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().parse().is_ok_and(|number: i64| number < 0) {
            return Ok(Self::Never);
        }
        let duration = parse(&text).map_err(D::Error::custom)?;
        Ok(if duration.is_zero() { Self::Default } else { Self::Of(duration) })
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let millis = text.trim().parse().ok().map(Duration::from_millis);
    millis
        .or_else(|| duration::parse(text))
        .ok_or_else(|| format!("invalid value {text:?}, expected milliseconds or a duration such as 500ms or 3s"))
}
