//! Settings of both versions of `state.postgresql`, with the names, defaults and units that Dapr has for them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};
use trilby_component::{ComponentError, Properties, Result, properties::duration};

use super::dsn::Dsn;

/// Metadata of the component. Settings of the connection that stand here replace those of the connection string.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// In libpq's keyword form, `host=localhost user=postgres`, or as a URL, `postgres://postgres@localhost/db`.
    /// Required unless `host`, `user` and so on say where to connect to.
    #[serde(alias = "url")]
    connection_string: String,
    /// Name of the server, or the folder of its socket. Default: `localhost`.
    host: String,
    /// Address of the server; `host` then only names it in certificates. Default: none.
    #[serde(rename = "hostaddr")]
    host_address: String,
    /// Default: 5432.
    port: String,
    /// Default: the user's name.
    database: String,
    user: String,
    password: String,
    /// File with the certificates, PEM, that may vouch for the server, or these themselves. Default: those of public
    /// authorities, for modes that check the server at all.
    ssl_root_cert: String,
    /// Longest time that an operation may take, at least 1 s. Default: 20 s.
    #[serde(alias = "timeoutInSeconds", with = "duration")]
    pub(super) timeout: Duration,
    /// The most connections at a time; less than 2 means the default. Default: 4, or the number of processors if larger.
    max_conns: i64,
    /// How long an unused connection is kept. Default: 30 min.
    #[serde(with = "duration")]
    connection_max_idle_time: Duration,
    /// How statements reach the server. Default: `cache_statement`.
    pub(crate) query_exec_mode: ExecMode,
    /// Pause between deletions of expired items; 0 or less means that they stay. Default: 1 h.
    #[serde(alias = "cleanupIntervalInSeconds", deserialize_with = "interval")]
    cleanup_interval: Duration,
    /// Table of what the component knows about itself, `table` or `schema.table`. Default: `dapr_metadata`.
    pub(super) metadata_table_name: String,
    /// v1: the table of items, `table` or `schema.table`. Default: `state`.
    pub(super) table_name: String,
    /// v2: what comes before `state` in the name of the table of items, for example `schema.` or `my_`. Default: none.
    pub(super) table_prefix: String,
    /// Microsoft Entra ID, which this store does not know. Default: false.
    #[serde(rename = "useAzureAD")]
    use_azure_ad: bool,
    /// AWS IAM, which this store does not know. Default: false.
    #[serde(rename = "useAWSIAM")]
    use_aws_iam: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connection_string: String::new(),
            host: String::new(),
            host_address: String::new(),
            port: String::new(),
            database: String::new(),
            user: String::new(),
            password: String::new(),
            ssl_root_cert: String::new(),
            timeout: Duration::from_secs(20),
            max_conns: 0,
            connection_max_idle_time: Duration::ZERO,
            query_exec_mode: ExecMode::CacheStatement,
            cleanup_interval: Duration::from_secs(3600),
            metadata_table_name: "dapr_metadata".to_owned(),
            table_name: "state".to_owned(),
            table_prefix: String::new(),
            use_azure_ad: false,
            use_aws_iam: false,
        }
    }
}

impl Config {
    /// # Errors
    /// `InvalidMetadata` that names the property, what was found and what is allowed.
    pub(crate) fn parse(properties: &Properties) -> Result<Self> {
        let config: Self = properties.parse()?;
        if config.use_azure_ad || config.use_aws_iam {
            return Err(ComponentError::metadata(
                "metadata useAzureAD and useAWSIAM are not supported; set user and password",
            ));
        }
        if config.timeout < Duration::from_secs(1) {
            return Err(ComponentError::metadata("invalid value for 'timeout': must be greater than 1s"));
        }
        Ok(config)
    }

    /// The connection string, with what other properties replace in it.
    ///
    /// # Errors
    /// `InvalidMetadata` if it does not parse, or if nothing says where to connect to.
    pub(super) fn dsn(&self) -> Result<Dsn> {
        let mut dsn = Dsn::parse(&self.connection_string)?;
        for (key, value) in [
            ("host", &self.host),
            ("hostaddr", &self.host_address),
            ("port", &self.port),
            ("dbname", &self.database),
            ("user", &self.user),
            ("password", &self.password),
            ("sslrootcert", &self.ssl_root_cert),
        ] {
            if !value.is_empty() {
                dsn.set(key, value);
            }
        }
        if dsn.is_empty() {
            return Err(ComponentError::metadata(
                "metadata connectionString is missing; set it, for example to \
                 host=localhost user=postgres password=secret database=dapr",
            ));
        }
        Ok(dsn)
    }

    /// The most connections, where `from_dsn` is what the connection string asks for.
    pub(super) fn max_connections(&self, from_dsn: Option<usize>) -> usize {
        let own = usize::try_from(self.max_conns).ok().filter(|&number| number > 1);
        own.or(from_dsn).unwrap_or_else(|| std::thread::available_parallelism().map_or(4, |number| number.get().max(4)))
    }

    pub(super) fn max_idle_time(&self) -> Duration {
        if self.connection_max_idle_time.is_zero() { Duration::from_secs(1800) } else { self.connection_max_idle_time }
    }

    pub(super) fn cleanup_interval(&self) -> Option<Duration> {
        Some(self.cleanup_interval).filter(|interval| !interval.is_zero())
    }
}

/// How statements reach the server, in pgx's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecMode {
    /// Prepared once for each connection. Fastest.
    CacheStatement,
    /// As the following ones: each statement with its text and unnamed, so that a pooler such as PgBouncer may hand it
    /// to any server connection. What they differ in concerns types, which are always known here.
    CacheDescribe,
    DescribeExec,
    Exec,
    SimpleProtocol,
}

/// A duration, where a negative one is as good as none.
fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (negative, size) = text.trim().strip_prefix('-').map_or((false, text.trim()), |size| (true, size));
    match duration::parse(size) {
        Some(duration) => Ok(if negative { Duration::ZERO } else { duration }),
        None => Err(D::Error::custom(format!("invalid value {text:?}, expected a duration such as 30s or 1m30s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::parse(&pairs.iter().copied().collect())
    }

    #[test]
    fn cleaning_up_is_hourly_and_can_be_switched_off() {
        let of = |text| config(&[("cleanupInterval", text)]).expect("valid").cleanup_interval();
        assert_eq!(of(""), Some(Duration::from_secs(3600)));
        assert_eq!(of("90"), Some(Duration::from_secs(90)));
        assert_eq!(of("0"), None);
        assert_eq!(of("-1"), None);
        assert_eq!(of("-10s"), None);
        assert!(config(&[("cleanupInterval", "often")]).is_err());
        let older = config(&[("cleanupIntervalInSeconds", "5")]).expect("valid");
        assert_eq!(older.cleanup_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_timeout_is_at_least_a_second() {
        assert_eq!(config(&[]).expect("valid").timeout, Duration::from_secs(20));
        assert_eq!(config(&[("timeoutInSeconds", "3")]).expect("valid").timeout, Duration::from_secs(3));
        let error = config(&[("timeout", "900ms")]).err().expect("too short");
        assert_eq!(error.to_string(), "invalid value for 'timeout': must be greater than 1s");
    }

    #[test]
    fn the_number_of_connections_has_a_default_for_less_than_two() {
        let of = |text, from_dsn| config(&[("maxConns", text)]).expect("valid").max_connections(from_dsn);
        assert_eq!(of("7", Some(3)), 7);
        assert_eq!(of("1", Some(3)), 3);
        assert!(of("-1", None) >= 4);
    }

    #[test]
    fn settings_that_cannot_be_met_are_refused() {
        for (pairs, message) in [
            (
                vec![("useAzureAD", "true")],
                "metadata useAzureAD and useAWSIAM are not supported; set user and password",
            ),
            (
                vec![("queryExecMode", "magic")],
                "metadata queryExecMode: unknown variant `magic`, expected one of `cache_statement`, `cache_describe`, \
                 `describe_exec`, `exec`, `simple_protocol`",
            ),
        ] {
            assert_eq!(config(&pairs).err().expect("invalid").to_string(), message);
        }
        let error = config(&[]).expect("valid").dsn().expect_err("nowhere to connect to");
        assert!(error.to_string().starts_with("metadata connectionString is missing"), "{error}");
    }
}
