//! A line of the log as text.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use super::{Format, Level};

/// What is logged of one event.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    /// Whose it is; the process's own app if nobody says.
    pub(super) app_id: Option<&'a str>,
    /// The part of the runtime, by daprd's names.
    pub(super) scope: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a [(&'static str, String)],
    pub(super) source: Source,
}

/// Who wrote a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Runtime,
    App,
}

impl Line<'_> {
    /// The line with its end. `app_id` is for lines that do not have one.
    pub(super) fn render(&self, format: Format, app_id: &str, instance: &str) -> String {
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let app_id = self.app_id.unwrap_or(app_id);
        let mut line = match format {
            Format::Text => self.text(&time, app_id, instance),
            Format::Json => self.json(&time, app_id, instance),
            Format::Console => self.console(&time, app_id),
        };
        line.push('\n');
        line
    }

    /// As logrus writes it for daprd: time, level and message, then the rest by name.
    fn text(&self, time: &str, app_id: &str, instance: &str) -> String {
        let mut line = String::with_capacity(256);
        let _ = write!(line, "time={} level={} msg={}", quoted(time), self.level.name(), quoted(self.message));
        for (key, value) in self.rest(app_id, instance) {
            let _ = write!(line, " {key}={}", quoted(value));
        }
        line
    }

    fn json(&self, time: &str, app_id: &str, instance: &str) -> String {
        let mut keys = self.rest(app_id, instance);
        keys.extend([("time", time), ("level", self.level.name()), ("msg", self.message)]);
        serde_json::to_string(&keys).expect("texts are always JSON")
    }

    fn console(&self, time: &str, app_id: &str) -> String {
        let clock = &time[11..23];
        if self.source == Source::App {
            return format!("{clock}         {app_id} | {}", self.message);
        }
        let mut line = format!("{clock} {:<7} {app_id} | {}", self.level.name(), self.message);
        for (key, value) in self.fields {
            let _ = write!(line, " {key}={}", quoted(value));
        }
        line
    }

    fn rest<'a>(&'a self, app_id: &'a str, instance: &'a str) -> BTreeMap<&'a str, &'a str> {
        let mut keys: BTreeMap<_, _> = self.fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        keys.extend([
            ("app_id", app_id),
            ("instance", instance),
            ("scope", self.scope),
            ("type", "log"),
            ("ver", trilby::VERSION),
        ]);
        keys
    }
}

/// A value as logrus writes it: in quotes if it has anything but letters, digits and a few signs.
fn quoted(value: &str) -> String {
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "-._/@^+".contains(c));
    if is_plain { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(message: &'a str, fields: &'a [(&'static str, String)]) -> Line<'a> {
        Line { level: Level::Info, app_id: None, scope: "dapr.runtime", message, fields, source: Source::Runtime }
    }

    #[test]
    fn text_has_daprds_keys_in_daprds_order() {
        let fields = [("component", "statestore".to_owned())];
        let text = line("dapr initialized. Status: Running. Init Elapsed 2ms", &fields).text("T:Z", "myapp", "host");
        let ver = quoted(trilby::VERSION);
        assert_eq!(
            text,
            format!(
                "time=\"T:Z\" level=info msg=\"dapr initialized. Status: Running. Init Elapsed 2ms\" app_id=myapp \
                 component=statestore instance=host scope=dapr.runtime type=log ver={ver}"
            )
        );
    }

    #[test]
    fn json_has_exactly_daprds_keys() {
        let text = line("say \"hi\"\n", &[]).json("T", "myapp", "host");
        let parsed: BTreeMap<String, String> = serde_json::from_str(&text).expect("JSON");
        let keys: Vec<_> = parsed.keys().map(String::as_str).collect();
        assert_eq!(keys, ["app_id", "instance", "level", "msg", "scope", "time", "type", "ver"]);
        assert_eq!(parsed["msg"], "say \"hi\"\n");
    }

    #[test]
    fn a_terminal_gets_columns_and_an_apps_own_words() {
        let time = "2026-11-21T13:00:00.123456789Z";
        let fields = [("component", "a b".to_owned())];
        assert_eq!(
            line("component loaded", &fields).console(time, "orders"),
            "13:00:00.123 info    orders | component loaded component=\"a b\""
        );
        let printed = Line { source: Source::App, ..line("hello", &[]) };
        assert_eq!(printed.console(time, "orders"), "13:00:00.123         orders | hello");
    }
}
