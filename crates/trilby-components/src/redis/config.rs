//! Settings of a connection to Redis, with the names, defaults and units that Dapr has for them.

use std::{fmt, time::Duration};

use serde::Deserialize;
use trilby_component::{ComponentError, Properties, Result};

use super::interval::Interval;

const DEFAULT_PORT: u16 = 6379;

/// Pauses between the attempts of a request where the metadata names none: Dapr's components differ in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pauses {
    min_millis: u64,
    max_millis: u64,
}

impl Pauses {
    /// Of state stores and lock stores.
    pub(crate) const STORE: Self = Self { min_millis: 2000, max_millis: 512 };
    /// Of configuration stores.
    pub(crate) const CONFIGURATION: Self = Self { min_millis: 8, max_millis: 2000 };
    /// Of brokers and bindings.
    pub(crate) const OTHERS: Self = Self { min_millis: 8, max_millis: 512 };
}

/// Metadata that all components over Redis have. What only a pool of connections needs (`poolSize`, `minIdleConns`, `poolTimeout`,
/// `maxConnAge`, `idleTimeout`, `idleCheckFrequency`) is accepted and has no effect: all requests share one
/// connection, on which they do not wait for each other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// `host` or `host:port`; several, separated by commas, for a cluster or for sentinels. Required.
    redis_host: String,
    /// The port of every host that is written without one. Default: 6379.
    redis_port: Option<u16>,
    /// Default: none, Redis's own `default` user.
    pub(crate) redis_username: String,
    /// Default: none.
    pub(crate) redis_password: String,
    /// Number of the database. A cluster has only 0. Default: 0.
    #[serde(rename = "redisDB")]
    pub(crate) redis_db: i64,
    /// `node` or `cluster`. Default: `node`.
    pub(crate) redis_type: Topology,
    /// Whether `redisHost` names sentinels that know where the server is. Default: false.
    pub(crate) failover: bool,
    /// The name under which the sentinels know the server. Required with `failover`.
    pub(crate) sentinel_master_name: String,
    /// Default: none.
    pub(crate) sentinel_username: String,
    /// Default: none.
    pub(crate) sentinel_password: String,
    /// Default: false.
    #[serde(rename = "enableTLS")]
    pub(crate) enable_tls: bool,
    /// Whether any certificate of the server will do. For tests only. Default: false.
    #[serde(rename = "insecureSkipTLSVerify")]
    pub(crate) insecure_skip_tls_verify: bool,
    /// This client's certificate, PEM. Default: none.
    pub(crate) client_cert: String,
    /// The key of `clientCert`, PEM. Default: none.
    pub(crate) client_key: String,
    /// How often a request is repeated that a lost connection or an unready server cost; -1 means never. Default: 3.
    redis_max_retries: Option<i32>,
    /// Older name of `redisMaxRetries`.
    max_retries: Option<i32>,
    /// Pause before the first repetition; it doubles from one to the next. Default: that of [`Pauses`].
    redis_min_retry_interval: Option<Interval>,
    /// Older name of `redisMinRetryInterval`, in nanoseconds.
    max_retry_backoff: Option<u64>,
    /// Longest pause between repetitions, also where the shortest is longer. Default: that of [`Pauses`].
    redis_max_retry_interval: Option<Interval>,
    /// Longest time that connecting may take. Default: 5 s.
    dial_timeout: Option<Interval>,
    /// Longest time until a read is answered; -1 means no limit. Default: 3 s.
    read_timeout: Option<Interval>,
    /// Longest time until a write is answered; -1 means no limit. Default: the read timeout.
    write_timeout: Option<Interval>,
    /// Microsoft Entra ID, which is not known here. Default: false.
    #[serde(rename = "useEntraID", alias = "useAzureAD")]
    use_entra_id: bool,
    /// OpenID Connect, which is not known here. Default: false.
    #[serde(rename = "useOIDC")]
    use_oidc: bool,
    #[serde(skip)]
    pauses: Pauses,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redis_host: String::new(),
            redis_port: None,
            redis_username: String::new(),
            redis_password: String::new(),
            redis_db: 0,
            redis_type: Topology::Node,
            failover: false,
            sentinel_master_name: String::new(),
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            enable_tls: false,
            insecure_skip_tls_verify: false,
            client_cert: String::new(),
            client_key: String::new(),
            redis_max_retries: None,
            max_retries: None,
            redis_min_retry_interval: None,
            max_retry_backoff: None,
            redis_max_retry_interval: None,
            dial_timeout: None,
            read_timeout: None,
            write_timeout: None,
            use_entra_id: false,
            use_oidc: false,
            pauses: Pauses::OTHERS,
        }
    }
}

impl Config {
    /// # Errors
    /// `InvalidMetadata` that names the property, what was found and what is allowed.
    pub(crate) fn parse(properties: &Properties, pauses: Pauses) -> Result<Self> {
        let config = Self { pauses, ..properties.parse()? };
        if config.use_entra_id || config.use_oidc {
            return Err(ComponentError::metadata(
                "metadata useEntraID and useOIDC are not supported; set redisUsername and redisPassword",
            ));
        }
        if config.failover && config.sentinel_master_name.is_empty() {
            return Err(ComponentError::metadata("metadata sentinelMasterName is missing; failover needs it"));
        }
        if config.client_cert.is_empty() != config.client_key.is_empty() {
            return Err(ComponentError::metadata("metadata clientCert and clientKey must be set together"));
        }
        Ok(config)
    }

    /// Where to connect to: one address for a single server, one or more otherwise.
    ///
    /// # Errors
    /// `InvalidMetadata` if there is none, one does not parse, or there are too many.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>> {
        let addresses = self
            .redis_host
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| Address::parse(text, self.redis_port))
            .collect::<Result<Vec<_>>>()?;
        match addresses.len() {
            0 => Err(ComponentError::metadata(
                "metadata redisHost is missing; set it to an address such as localhost:6379",
            )),
            2.. if self.redis_type == Topology::Node && !self.failover => Err(ComponentError::metadata(
                "metadata redisHost has several addresses; set redisType to cluster, or failover to true",
            )),
            _ => Ok(addresses),
        }
    }

    pub(crate) fn retries(&self) -> u32 {
        // As in Dapr, 0 means the default and only a negative number none.
        match self.redis_max_retries.or(self.max_retries).unwrap_or(0) {
            0 => 3,
            number => u32::try_from(number).unwrap_or(0),
        }
    }

    pub(crate) fn min_pause(&self) -> Duration {
        let legacy = self.max_retry_backoff.map(|nanos| Interval::Of(Duration::from_nanos(nanos)));
        let default = Interval::Of(Duration::from_millis(self.pauses.min_millis));
        // As in Dapr, a 0 that somebody wrote down means the driver's default and not the component's.
        self.redis_min_retry_interval.or(legacy).unwrap_or(default).or_default(8).unwrap_or_default()
    }

    pub(crate) fn max_pause(&self) -> Duration {
        let default = Interval::Of(Duration::from_millis(self.pauses.max_millis));
        self.redis_max_retry_interval.unwrap_or(default).or_default(512).unwrap_or_default()
    }

    pub(crate) fn dial_timeout(&self) -> Duration {
        // Dapr has no way to wait for ever here either.
        self.dial_timeout.unwrap_or_default().or_default(5000).unwrap_or(Duration::from_secs(5))
    }

    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.read_timeout.unwrap_or_default().or_default(3000)
    }

    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        match self.write_timeout {
            None | Some(Interval::Default) => self.read_timeout(),
            Some(interval) => interval.or_default(3000),
        }
    }
}

/// How the servers are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Topology {
    Node,
    Cluster,
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    fn parse(text: &str, port: Option<u16>) -> Result<Self> {
        // More than one colon without brackets is an IPv6 address without a port.
        let split = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, own) = match split {
            None => (text, None),
            Some((host, own)) => {
                let own = own.parse::<u16>().map_err(|_| {
                    ComponentError::metadata(format!(
                        "metadata redisHost: {text:?} has no valid port, expected host:port"
                    ))
                })?;
                (host, Some(own))
            }
        };
        if let (Some(own), Some(port)) = (own, port)
            && own != port
        {
            return Err(ComponentError::metadata(format!(
                "redis host {text:?} already contains port {own}, but redisPort is set to {port}; \
                 either remove the port from redisHost or remove the redisPort setting"
            )));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: own.or(port).unwrap_or(DEFAULT_PORT) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::parse(&pairs.iter().copied().collect(), Pauses::STORE)
    }

    fn addresses(pairs: &[(&str, &str)]) -> Result<Vec<String>> {
        let addresses = config(pairs)?.addresses()?;
        Ok(addresses.iter().map(Address::to_string).collect())
    }

    #[test]
    fn a_host_without_a_port_gets_one() {
        for (host, port, expect) in [
            ("localhost", "", "localhost:6379"),
            ("localhost", "7000", "localhost:7000"),
            ("localhost:7000", "", "localhost:7000"),
            ("localhost:7000", "7000", "localhost:7000"),
            ("::1", "", "[::1]:6379"),
            ("[::1]", "", "[::1]:6379"),
            ("[::1]:7000", "", "[::1]:7000"),
        ] {
            let found = addresses(&[("redisHost", host), ("redisPort", port)]).expect("valid");
            assert_eq!(found, [expect], "{host} {port}");
        }
    }

    #[test]
    fn hosts_that_cannot_be_meant_are_refused() {
        for (pairs, message) in [
            (vec![], "metadata redisHost is missing; set it to an address such as localhost:6379"),
            (vec![("redisHost", "h:port")], "metadata redisHost: \"h:port\" has no valid port, expected host:port"),
            (
                vec![("redisHost", "a:1,b:2")],
                "metadata redisHost has several addresses; set redisType to cluster, or failover to true",
            ),
            (
                vec![("redisHost", "h:1"), ("redisPort", "2")],
                "redis host \"h:1\" already contains port 1, but redisPort is set to 2; \
                 either remove the port from redisHost or remove the redisPort setting",
            ),
        ] {
            assert_eq!(addresses(&pairs).expect_err("invalid").to_string(), message);
        }
        let cluster = [("redisHost", "a:1, b"), ("redisPort", ""), ("redisType", "Cluster")];
        assert_eq!(addresses(&cluster).expect("valid"), ["a:1", "b:6379"]);
    }

    #[test]
    fn a_bare_number_counts_milliseconds_zero_is_the_default_and_minus_one_none() {
        let of = |text| config(&[("readTimeout", text)]).expect("valid").read_timeout();
        assert_eq!(of(""), Some(Duration::from_secs(3)));
        assert_eq!(of("0"), Some(Duration::from_secs(3)));
        assert_eq!(of("250"), Some(Duration::from_millis(250)));
        assert_eq!(of("4s"), Some(Duration::from_secs(4)));
        assert_eq!(of("-1"), None);
        let error = config(&[("readTimeout", "soon")]).err().expect("not a duration");
        assert_eq!(
            error.to_string(),
            "metadata readTimeout: invalid value \"soon\", expected milliseconds or a duration such as 500ms or 3s"
        );
    }

    #[test]
    fn retries_have_the_names_and_defaults_of_dapr() {
        let of = |pairs: &[_]| config(pairs).expect("valid").retries();
        assert_eq!(of(&[]), 3);
        assert_eq!(of(&[("redisMaxRetries", "-1")]), 0);
        assert_eq!(of(&[("maxRetries", "7")]), 7);
        assert_eq!(of(&[("maxRetries", "7"), ("redisMaxRetries", "5")]), 5);
        let default = config(&[]).expect("valid");
        assert_eq!((default.min_pause(), default.max_pause()), (Duration::from_secs(2), Duration::from_millis(512)));
        let broker = Config::parse(&Properties::default(), Pauses::OTHERS).expect("valid");
        assert_eq!((broker.min_pause(), broker.max_pause()), (Duration::from_millis(8), Duration::from_millis(512)));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for pairs in [
            vec![("failover", "true")],
            vec![("clientCert", "x")],
            vec![("useEntraID", "true")],
            vec![("redisType", "ring")],
            vec![("redisPort", "http")],
        ] {
            let error = config(&pairs).err().expect("invalid");
            assert_eq!(error.kind(), trilby_component::ErrorKind::InvalidMetadata);
            assert!(error.to_string().contains("metadata "), "{error}");
        }
    }
}
