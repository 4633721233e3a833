//! Connection strings: libpq's keyword form and URLs, read into the driver's own settings.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use trilby_component::{ComponentError, Result};

/// What the driver reads itself. Anything else that a string may hold is set for the session on the server.
const DRIVER_KEYS: [&str; 18] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Settings of Dapr's driver that have no meaning for this one.
const IGNORED_KEYS: [&str; 10] = [
    "default_query_exec_mode",
    "description_cache_capacity",
    "fallback_application_name",
    "min_read_buffer_size",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_min_conns",
    "statement_cache_capacity",
];

/// A connection string, taken apart. `Debug` shows keys only: one of the values is a password.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Dsn {
    pairs: BTreeMap<String, String>,
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.pairs.keys()).finish()
    }
}

/// Which certificates of a server will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Anyone,
    /// Those that a trusted authority signed, for whatever name.
    Authority,
    /// Those that a trusted authority signed for the name of the server.
    AuthorityAndName,
}

impl Dsn {
    /// # Errors
    /// `InvalidMetadata` if the text has neither form. The text is not part of the message: it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let pairs = match url {
            Some(rest) => parse_url(rest),
            None => parse_keywords(text),
        };
        let pairs = pairs
            .map_err(|reason| ComponentError::metadata(format!("metadata connectionString is malformed: {reason}")))?;
        let mut dsn = Self::default();
        for (key, value) in pairs {
            dsn.set(&key, &value);
        }
        Ok(dsn)
    }

    /// Sets a value, whether or not the string had one.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let key = if key == "database" { "dbname" } else { key };
        self.pairs.insert(key.to_owned(), value.to_owned());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn max_connections(&self) -> Option<usize> {
        self.get("pool_max_conns")?.parse().ok().filter(|&number| number > 0)
    }

    /// The settings of the driver.
    ///
    /// # Errors
    /// `InvalidMetadata` for a value that the driver cannot read.
    pub(super) fn driver_config(&self) -> Result<tokio_postgres::Config> {
        let mut keywords = String::new();
        let mut session = self.get("options").unwrap_or_default().to_owned();
        for (key, value) in &self.pairs {
            if DRIVER_KEYS.contains(&key.as_str()) {
                let _ = write!(keywords, "{key}='{}' ", escape(driver_word(key, value), &['\\', '\'']));
            } else if !IGNORED_KEYS.contains(&key.as_str()) && key != "pool_max_conns" && !key.starts_with("ssl") {
                let _ = write!(session, " -c {key}={}", escape(value, &['\\', ' ']));
            }
        }
        let mut config = tokio_postgres::Config::from_str(&keywords).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            ComponentError::metadata(format!("metadata connectionString is malformed: {cause}"))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if !session.is_empty() {
            config.options(session.trim_start());
        }
        config.ssl_mode(self.ssl_mode()?.0);
        Ok(config)
    }

    /// Whether to speak TLS, and with whom.
    ///
    /// # Errors
    /// `InvalidMetadata` for a mode that does not exist.
    pub(super) fn ssl_mode(&self) -> Result<(tokio_postgres::config::SslMode, Trust)> {
        use tokio_postgres::config::SslMode;
        Ok(match self.get("sslmode").unwrap_or("prefer") {
            "disable" => (SslMode::Disable, Trust::Anyone),
            "allow" | "prefer" => (SslMode::Prefer, Trust::Anyone),
            // As in libpq: whoever names authorities wants them asked.
            "require" if self.get("sslrootcert").is_some() => (SslMode::Require, Trust::Authority),
            "require" => (SslMode::Require, Trust::Anyone),
            "verify-ca" => (SslMode::Require, Trust::Authority),
            "verify-full" => (SslMode::Require, Trust::AuthorityAndName),
            other => {
                return Err(ComponentError::metadata(format!(
                    "metadata connectionString: sslmode {other:?} does not exist, expected disable, allow, prefer, \
                     require, verify-ca or verify-full"
                )));
            }
        })
    }
}

/// The driver knows fewer words for the kind of server than Dapr's; a primary is the one that can be written to.
fn driver_word<'a>(key: &str, value: &'a str) -> &'a str {
    match (key, value) {
        ("target_session_attrs", "primary") => "read-write",
        ("target_session_attrs", "standby") => "read-only",
        ("target_session_attrs", "prefer-standby") => "any",
        _ => value,
    }
}

fn escape(value: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

type Pairs = Vec<(String, String)>;

/// `user:password@host:port,host:port/database?key=value`, each part optional and percent-encoded.
fn parse_url(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let (rest, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (key, value) in [("user", user), ("password", password), ("dbname", database)] {
        if !value.is_empty() {
            pairs.push((key.to_owned(), decode(value)?));
        }
    }
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            // A colon inside brackets belongs to an IPv6 address.
            let (name, port) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).unwrap_or((host, ""));
            names.push(decode(name.trim_start_matches('[').trim_end_matches(']'))?);
            ports.push(port.to_owned());
        }
        pairs.push(("host".to_owned(), names.join(",")));
        if ports.iter().any(|port| !port.is_empty()) {
            pairs.push(("port".to_owned(), ports.join(",")));
        }
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or("a parameter after ? has no value")?;
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "a percent-encoded part is not UTF-8".to_owned())
}

/// `key=value key='quoted \' value'`, with space around the equals sign if one likes.
fn parse_keywords(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=').ok_or("a keyword has no value, expected key=value")?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!("{:?} has no value, expected key=value", key.split_whitespace().next().unwrap_or("")));
        }
        let (value, tail) = take_value(tail.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = tail.trim_start();
    }
    Ok(pairs)
}

/// The value at the start of `text`, and what comes after it.
fn take_value(text: &str) -> Result<(String, &str), String> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next().ok_or("it ends with a backslash")?.1),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::{Host, SslMode};

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Dsn::parse(text).expect("valid").pairs.into_iter().collect()
    }

    #[test]
    fn both_forms_say_the_same() {
        let keywords = "host=db.example port = 6000 user=o password='a b\\'c\\\\' database=dapr sslmode=disable";
        let url = "postgresql://o:a%20b%27c%5C@db.example:6000/dapr?sslmode=disable";
        assert_eq!(pairs(keywords), pairs(url));
        let config = Dsn::parse(url).expect("valid").driver_config().expect("valid");
        assert_eq!(config.get_password(), Some(b"a b'c\\" as &[u8]));
        assert_eq!(config.get_hosts(), [Host::Tcp("db.example".to_owned())]);
        assert_eq!((config.get_ports(), config.get_dbname()), (&[6000][..], Some("dapr")));
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn several_hosts_and_ipv6_are_read() {
        let config = Dsn::parse("postgres://u@[::1]:1,b/d").expect("valid").driver_config().expect("valid");
        assert_eq!(config.get_hosts(), [Host::Tcp("::1".to_owned()), Host::Tcp("b".to_owned())]);
        assert_eq!(config.get_ports(), [1, 5432]);
    }

    #[test]
    fn what_the_driver_does_not_know_is_set_for_the_session() {
        let text = "host=h user=u search_path=my\\ app,public pool_max_conns=9 pool_min_conns=2 options='-c a=b'";
        let dsn = Dsn::parse(text).expect("valid");
        let config = dsn.driver_config().expect("valid");
        assert_eq!(config.get_options(), Some("-c a=b -c search_path=my\\ app,public"));
        assert_eq!(dsn.max_connections(), Some(9));
    }

    #[test]
    fn a_string_without_a_host_means_this_machine() {
        let config = Dsn::parse("user=u").expect("valid").driver_config().expect("valid");
        assert_eq!(config.get_hosts(), [Host::Tcp("localhost".to_owned())]);
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn the_mode_decides_whom_to_trust() {
        for (text, expect) in [
            ("sslmode=require", (SslMode::Require, Trust::Anyone)),
            ("sslmode=require sslrootcert=ca.pem", (SslMode::Require, Trust::Authority)),
            ("sslmode=verify-ca", (SslMode::Require, Trust::Authority)),
            ("sslmode=verify-full", (SslMode::Require, Trust::AuthorityAndName)),
        ] {
            assert_eq!(Dsn::parse(text).and_then(|dsn| dsn.ssl_mode()).expect("valid"), expect, "{text}");
        }
    }

    #[test]
    fn malformed_strings_are_refused_without_showing_them() {
        for (text, reason) in [
            ("host", "a keyword has no value, expected key=value"),
            ("host h=1", "\"host\" has no value, expected key=value"),
            ("password='secret", "a quote is not closed"),
            ("postgres://u:%ff@h/d", "a percent-encoded part is not UTF-8"),
            ("postgres://h/d?sslmode", "a parameter after ? has no value"),
        ] {
            let error = Dsn::parse(text).expect_err(text);
            assert_eq!(error.to_string(), format!("metadata connectionString is malformed: {reason}"));
        }
        for text in ["port=many", "target_session_attrs=nice"] {
            let error = Dsn::parse(text).and_then(|dsn| dsn.driver_config()).expect_err(text);
            assert!(error.to_string().starts_with("metadata connectionString is malformed: "), "{error}");
        }
        let error = Dsn::parse("sslmode=maybe").and_then(|dsn| dsn.driver_config()).expect_err("no such mode");
        assert!(error.to_string().contains("sslmode \"maybe\" does not exist"), "{error}");
    }
}
