//! Settings of the components over Kafka, with the names, defaults and units that Dapr has for them.

use std::time::Duration;

use krafka::{
    Compression, Kafka,
    auth::{AuthConfig, TlsConfig},
    consumer::{AutoOffsetReset, ConsumerBuilder, PartitionAssignmentStrategy},
    producer::{Acks, ProducerBuilder},
};
use serde::Deserialize;
use trilby_component::{
    ComponentError, Properties, Result,
    properties::{duration, is_truthy},
};

use super::{Handling, explain};

/// Metadata of the component. `version`, `producerRetryMax` and `clientConnectionKeepAliveInterval` are accepted and
/// have no effect: versions are negotiated, and what can be sent again is sent again until `readTimeout` is over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// `host:port` of some servers of the cluster, separated by commas. Required.
    brokers: String,
    /// Default: `consumerID`, which the runtime sets to the app's id.
    consumer_group: String,
    #[serde(rename = "consumerID")]
    consumer_id: String,
    /// What the servers call us. Default: `sarama`, after Dapr's driver.
    client_id: String,
    /// `none`, `password`, `mtls` or `certificate`. Required, unless the older `authRequired` is there.
    auth_type: String,
    auth_required: String,
    sasl_username: String,
    sasl_password: String,
    /// `SHA-256`, `SHA-512`, or anything else for the password as it is. Default: as it is.
    sasl_mechanism: String,
    /// Where a new consumer group begins: `newest` or `oldest`. Default: `newest`.
    initial_offset: String,
    /// Longest value of a record that is sent, in bytes. Default: no limit but the server's.
    pub(super) max_message_bytes: usize,
    /// Whether connections are not encrypted, although there is authentication. Default: false.
    disable_tls: bool,
    /// Whether any certificate of a server will do. For tests only. Default: false.
    skip_verify: bool,
    /// Authorities that vouch for the servers, PEM. Default: those that browsers trust.
    ca_cert: String,
    /// Our certificate and its key, PEM, for `mtls`.
    client_cert: String,
    client_key: String,
    /// Whether a message that was not handled is offered again. Default: true for pub/sub, false for a binding.
    consume_retry_enabled: Option<bool>,
    /// Between two attempts to have a message handled. Default: 5 s.
    #[serde(with = "duration")]
    back_off_duration: Duration,
    /// Attempts after the first; less than 0 is for ever. Default: for ever.
    back_off_max_retries: i64,
    /// Between two attempts to read. A bare number counts milliseconds. Default: 100 ms.
    consume_retry_interval: String,
    #[serde(with = "duration")]
    heartbeat_interval: Duration,
    #[serde(with = "duration")]
    session_timeout: Duration,
    /// Whether keys and headers of a message are escaped as in a query. Default: false.
    pub(super) escape_headers: bool,
    /// Names of metadata that never become headers, nor headers metadata. Default: none.
    pub(super) exclude_header_meta_regex: String,
    #[serde(with = "duration")]
    dial_timeout: Duration,
    #[serde(with = "duration")]
    read_timeout: Duration,
    #[serde(with = "duration")]
    client_connection_topic_metadata_refresh_interval: Duration,
    /// Most messages of a partition that wait for the one before them. Default: 256.
    channel_buffer_size: usize,
    consumer_fetch_min: i32,
    consumer_fetch_default: i32,
    /// `range`, `roundrobin` or `sticky`. Default: `range`.
    consumer_group_rebalance_strategy: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`. Default: `none`.
    compression: String,
    /// Which servers must have a message before it counts as published: `all`, `local` or `none`. Default: `all`.
    producer_required_acks: String,
    /// Schemas, which these components do not know.
    #[serde(rename = "schemaRegistryURL")]
    schema_registry_url: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            consumer_group: String::new(),
            consumer_id: String::new(),
            client_id: "sarama".to_owned(),
            auth_type: String::new(),
            auth_required: String::new(),
            sasl_username: String::new(),
            sasl_password: String::new(),
            sasl_mechanism: String::new(),
            initial_offset: String::new(),
            max_message_bytes: 0,
            disable_tls: false,
            skip_verify: false,
            ca_cert: String::new(),
            client_cert: String::new(),
            client_key: String::new(),
            consume_retry_enabled: None,
            back_off_duration: Duration::from_secs(5),
            back_off_max_retries: -1,
            consume_retry_interval: String::new(),
            heartbeat_interval: Duration::from_secs(3),
            session_timeout: Duration::from_secs(10),
            escape_headers: false,
            exclude_header_meta_regex: String::new(),
            dial_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            client_connection_topic_metadata_refresh_interval: Duration::from_secs(8 * 60),
            channel_buffer_size: 256,
            consumer_fetch_min: 1,
            consumer_fetch_default: 1 << 20,
            consumer_group_rebalance_strategy: String::new(),
            compression: String::new(),
            producer_required_acks: String::new(),
            schema_registry_url: String::new(),
        }
    }
}

impl Config {
    /// # Errors
    /// `InvalidMetadata` that names the property, what was found and what is allowed.
    pub(crate) fn parse(properties: &Properties) -> Result<Self> {
        let config: Self = properties.parse()?;
        if config.brokers.is_empty() {
            return Err(invalid("missing 'brokers' attribute"));
        }
        if !config.schema_registry_url.is_empty() {
            return Err(ComponentError::metadata(
                "metadata schemaRegistryURL is not supported; leave it out and publish values as they are",
            ));
        }
        // What is read later is checked here.
        config.security()?;
        config.start()?;
        config.strategy()?;
        config.compression()?;
        config.acks()?;
        config.pause()?;
        Ok(config)
    }

    /// Connects to the cluster.
    ///
    /// # Errors
    /// `Unavailable` if none of the servers can be reached; `Denied` if they refuse the login.
    pub(crate) async fn connect(&self) -> Result<Kafka> {
        let dial = positive(self.dial_timeout, 30);
        let kafka = Kafka::builder(&self.brokers)
            .client_id(&self.client_id)
            .connect_timeout(dial)
            .request_timeout(positive(self.read_timeout, 30).max(dial))
            .metadata_max_age(positive(self.client_connection_topic_metadata_refresh_interval, 8 * 60))
            .allow_auto_create_topics(true)
            .security(self.security()?);
        kafka.connect().await.map_err(explain)
    }

    /// The consumer group.
    ///
    /// # Errors
    /// `InvalidMetadata` if nothing names it.
    pub(super) fn group(&self) -> Result<&str> {
        [&self.consumer_group, &self.consumer_id]
            .into_iter()
            .find(|name| !name.is_empty())
            .map(String::as_str)
            .ok_or_else(|| {
                ComponentError::metadata("metadata consumerGroup is missing; set it, or consumerID, to subscribe")
            })
    }

    /// # Errors
    /// None that [`Config::parse`] has not found.
    pub(super) fn consumer(&self, builder: ConsumerBuilder) -> Result<ConsumerBuilder> {
        Ok(builder
            .auto_offset_reset(self.start()?)
            // What is handled is committed, not what is read.
            .enable_auto_commit(false)
            .heartbeat_interval(self.heartbeat_interval)
            .session_timeout(self.session_timeout)
            .fetch_min_bytes(self.consumer_fetch_min)
            .max_partition_fetch_bytes(self.consumer_fetch_default)
            .partition_assignment_strategy(self.strategy()?)
            .metrics_push(false))
    }

    /// # Errors
    /// None that [`Config::parse`] has not found.
    pub(super) fn producer(&self, builder: ProducerBuilder) -> Result<ProducerBuilder> {
        let acks = self.acks()?;
        let limit = positive(self.read_timeout, 30).max(positive(self.dial_timeout, 30));
        Ok(builder
            .idempotent(matches!(acks, Acks::All))
            .acks(acks)
            .compression(self.compression()?)
            // Whoever publishes waits: what comes meanwhile makes the next batch.
            .linger(Duration::ZERO)
            .delivery_timeout(limit)
            .max_block(limit)
            .metrics_push(false))
    }

    /// How records are handled; `retries` says whether one that was not is offered again where the metadata do not.
    pub(crate) fn handling(&self, retries: bool) -> Handling {
        Handling {
            retries: match self.consume_retry_enabled.unwrap_or(retries) {
                true => u64::try_from(self.back_off_max_retries).ok(),
                false => Some(0),
            },
            pause: self.back_off_duration,
            bulk: None,
            buffer: self.channel_buffer_size.clamp(1, 100_000),
        }
    }

    /// Between two attempts to read.
    ///
    /// # Errors
    /// None that [`Config::parse`] has not found.
    pub(super) fn pause(&self) -> Result<Duration> {
        let text = self.consume_retry_interval.as_str();
        match text.parse::<u64>() {
            Ok(millis) => Ok(Duration::from_millis(millis)),
            Err(_) if text.is_empty() => Ok(Duration::from_millis(100)),
            Err(_) => {
                duration::parse(text).ok_or_else(|| invalid("invalid value for 'consumeRetryInterval' attribute"))
            }
        }
    }

    fn auth_type(&self) -> Result<String> {
        if !self.auth_type.is_empty() {
            return Ok(self.auth_type.to_lowercase());
        }
        let legacy = match self.auth_required.as_str() {
            "" => return Err(invalid("'authType' attribute was missing or empty")),
            text if !is_truthy(text) => "none",
            _ if !self.sasl_password.is_empty() => "password",
            _ => "mtls",
        };
        Ok(legacy.to_owned())
    }

    fn security(&self) -> Result<AuthConfig> {
        let missing = |what: &str, kind: &str| invalid(&format!("missing {what} for authType '{kind}'"));
        let auth_type = self.auth_type()?;
        let plain = match auth_type.as_str() {
            "none" => return Ok(AuthConfig::plaintext()),
            "password" if self.sasl_username.is_empty() => return Err(missing("SASL Username", "password")),
            "password" if self.sasl_password.is_empty() => return Err(missing("SASL Password", "password")),
            "password" => Some(match self.sasl_mechanism.as_str() {
                "SHA-256" => AuthConfig::sasl_scram_sha256(&self.sasl_username, &self.sasl_password),
                "SHA-512" => AuthConfig::sasl_scram_sha512(&self.sasl_username, &self.sasl_password),
                _ => AuthConfig::sasl_plain(&self.sasl_username, &self.sasl_password),
            }),
            "mtls" if self.client_cert.is_empty() != self.client_key.is_empty() => {
                return Err(invalid("clientKey or clientCert is missing"));
            }
            "mtls" if self.disable_tls => {
                return Err(invalid("cannot configure mTLS authentication when disableTls is 'true'"));
            }
            "certificate" if self.ca_cert.is_empty() => {
                return Err(ComponentError::metadata(
                    "missing CA certificate property 'caCert' for authType 'certificate'",
                ));
            }
            "mtls" | "certificate" => None,
            "oidc" | "oidc_private_key_jwt" | "awsiam" => {
                return Err(ComponentError::metadata(format!(
                    "metadata authType {auth_type:?} is not supported; use password, mtls, certificate or none"
                )));
            }
            _ => return Err(invalid("invalid value for 'authType' attribute")),
        };
        let tls = self.tls()?;
        Ok(match plain {
            Some(plain) if self.disable_tls => plain,
            Some(plain) => plain.with_tls(tls),
            None if self.disable_tls => AuthConfig::plaintext(),
            None => AuthConfig::ssl(tls),
        })
    }

    fn tls(&self) -> Result<TlsConfig> {
        let all = [
            ("ca certificate", &self.ca_cert),
            ("client certificate", &self.client_cert),
            ("client key", &self.client_key),
        ];
        if let Some((what, _)) = all.iter().find(|(_, value)| !value.is_empty() && !value.contains("-----BEGIN ")) {
            return Err(invalid(&format!("invalid {what}")));
        }
        let mut tls = if self.skip_verify { TlsConfig::insecure() } else { TlsConfig::new() };
        if !self.ca_cert.is_empty() {
            tls = tls.with_ca_cert_pem(self.ca_cert.clone());
        }
        if !self.client_cert.is_empty() && !self.client_key.is_empty() {
            tls = tls.with_client_cert_pem(self.client_cert.clone(), self.client_key.clone().into_bytes());
        }
        Ok(tls)
    }

    fn start(&self) -> Result<AutoOffsetReset> {
        match self.initial_offset.to_lowercase().as_str() {
            "" | "newest" => Ok(AutoOffsetReset::Latest),
            "oldest" => Ok(AutoOffsetReset::Earliest),
            _ => Err(invalid(&format!("invalid initialOffset: {}", self.initial_offset))),
        }
    }

    fn strategy(&self) -> Result<PartitionAssignmentStrategy> {
        match self.consumer_group_rebalance_strategy.to_lowercase().as_str() {
            "" | "range" => Ok(PartitionAssignmentStrategy::Range),
            "roundrobin" => Ok(PartitionAssignmentStrategy::RoundRobin),
            // The one that moves as little, and does not stop what need not move either.
            "sticky" => Ok(PartitionAssignmentStrategy::CooperativeSticky),
            other => Err(invalid(&format!(
                "invalid consumerGroupRebalanceStrategy: {other}, expected range, roundrobin or sticky"
            ))),
        }
    }

    fn compression(&self) -> Result<Compression> {
        match self.compression.as_str() {
            "" | "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "snappy" => Ok(Compression::Snappy),
            "lz4" => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd),
            other => Err(invalid(&format!("invalid compression: {other}"))),
        }
    }

    fn acks(&self) -> Result<Acks> {
        match self.producer_required_acks.to_lowercase().as_str() {
            "" | "all" => Ok(Acks::All),
            "local" => Ok(Acks::Leader),
            "none" => Ok(Acks::None),
            _ => Err(invalid(&format!(
                "invalid value for 'producerRequiredAcks': {:?} (must be \"all\", \"local\", or \"none\")",
                self.producer_required_acks
            ))),
        }
    }
}

/// An error with the words before it that Dapr has there.
fn invalid(message: &str) -> ComponentError {
    ComponentError::metadata(format!("kafka error: {message}"))
}

/// As Dapr: what is not positive is the default.
fn positive(duration: Duration, default_seconds: u64) -> Duration {
    if duration.is_zero() { Duration::from_secs(default_seconds) } else { duration }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        let own = [("brokers", "h:1"), ("authType", "none")];
        Config::parse(&own.iter().chain(pairs).copied().collect())
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused_as_dapr_does() {
        for (pairs, message) in [
            (vec![("brokers", "")], "kafka error: missing 'brokers' attribute"),
            (vec![("authType", "")], "kafka error: 'authType' attribute was missing or empty"),
            (vec![("authType", "x")], "kafka error: invalid value for 'authType' attribute"),
            (vec![("authType", "password")], "kafka error: missing SASL Username for authType 'password'"),
            (
                vec![("authType", "password"), ("saslUsername", "u")],
                "kafka error: missing SASL Password for authType 'password'",
            ),
            (vec![("authType", "mtls"), ("clientCert", "x")], "kafka error: clientKey or clientCert is missing"),
            (vec![("authType", "mtls"), ("caCert", "x")], "kafka error: invalid ca certificate"),
            (vec![("authType", "certificate")], "missing CA certificate property 'caCert' for authType 'certificate'"),
            (vec![("initialOffset", "middle")], "kafka error: invalid initialOffset: middle"),
            (vec![("compression", "rar")], "kafka error: invalid compression: rar"),
            (
                vec![("producerRequiredAcks", "some")],
                "kafka error: invalid value for 'producerRequiredAcks': \"some\" (must be \"all\", \"local\", or \"none\")",
            ),
            (vec![("consumeRetryInterval", "soon")], "kafka error: invalid value for 'consumeRetryInterval' attribute"),
        ] {
            assert_eq!(config(&pairs).err().expect("invalid").to_string(), message);
        }
    }

    #[test]
    fn what_is_not_there_says_so() {
        for pairs in [[("authType", "oidc")], [("schemaRegistryURL", "http://h")]] {
            let error = config(&pairs).err().expect("not supported").to_string();
            assert!(error.contains("is not supported"), "{error}");
        }
        let error = config(&[]).expect("valid").group().expect_err("no group").to_string();
        assert!(error.starts_with("metadata consumerGroup is missing"), "{error}");
    }

    #[test]
    fn an_older_setting_stands_for_the_kind_of_authentication() {
        for (pairs, expected) in [
            (vec![("authRequired", "false")], "none"),
            (vec![("authRequired", "true"), ("saslPassword", "p")], "password"),
            (vec![("authRequired", "true")], "mtls"),
        ] {
            let config: Config = pairs.into_iter().collect::<Properties>().parse().expect("valid");
            assert_eq!(config.auth_type().expect("valid"), expected);
        }
    }

    #[test]
    fn the_group_is_the_consumer_id_unless_it_has_a_name() {
        let both = config(&[("consumerID", "app"), ("consumerGroup", "group")]).expect("valid");
        assert_eq!(both.group().expect("named"), "group");
        assert_eq!(config(&[("consumerID", "app")]).expect("valid").group().expect("named"), "app");
    }

    #[test]
    fn a_bare_number_of_the_retry_interval_counts_milliseconds() {
        for (text, millis) in [("", 100), ("250", 250), ("2s", 2000)] {
            let config = config(&[("consumeRetryInterval", text)]).expect("valid");
            assert_eq!(config.pause().expect("valid"), Duration::from_millis(millis));
        }
    }
}
