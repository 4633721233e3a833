//! Settings of `pubsub.rabbitmq`, with the names, defaults and units that Dapr has for them.

use std::time::Duration;

use lapin::ExchangeKind;
use serde::Deserialize;
use trilby_component::{ComponentError, Properties, Result, properties::duration};

use crate::{
    rabbitmq::{Endpoint, PREFETCH},
    tls, ttl,
};

/// Metadata of the component, besides `caCert`, `clientCert` and `clientKey`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    /// `amqp://user:password@host:port/vhost`, or `amqps` for TLS. Default: made of the four that follow.
    #[serde(alias = "host")]
    connection_string: String,
    /// `amqp` or `amqps`; must agree with `connectionString` if both are there. Default: `amqp`.
    protocol: String,
    /// `host` or `host:port`. Default: `localhost`.
    hostname: String,
    /// Default: `guest`.
    username: String,
    /// Default: `guest`.
    password: String,
    /// The first part of the names of queues. The runtime sets it to the app's id where the metadata do not.
    #[serde(rename = "consumerID")]
    pub(super) consumer_id: String,
    /// Whether exchanges and queues survive a restart of the server. Default: true.
    pub(super) durable: bool,
    /// Whether messages that were not handled go to an exchange `dlx-<queue>` and its queue. Default: false.
    pub(super) enable_dead_letter: bool,
    /// Whether exchanges and queues go when nobody uses them any more. Default: true.
    #[serde(rename = "deletedWhenUnused")]
    pub(super) delete_when_unused: bool,
    /// Whether a message counts as handled when it arrives. Default: false.
    pub(super) auto_ack: bool,
    /// Whether a message that was not handled goes back into its queue. Default: false, it is dropped or dead-lettered.
    pub(super) requeue_in_failure: bool,
    /// 2 for messages that survive a restart of the server, in queues that do. Default: 0.
    pub(super) delivery_mode: u8,
    /// Most messages that are in hand at once, for each subscription. Default: 256, where Dapr has no limit.
    prefetch_count: u8,
    /// Between two attempts to connect. Default: 3 s.
    #[serde(rename = "reconnectWaitSeconds", with = "duration")]
    pub(super) reconnect_wait: Duration,
    /// Most messages in a queue. Default: no limit.
    pub(super) max_len: i64,
    /// Most bytes in a queue. Default: no limit.
    pub(super) max_len_bytes: i64,
    /// `fanout`, `topic`, `direct` or `headers`. Default: `fanout`.
    exchange_kind: String,
    /// Whether to publish is to wait until the server has the message. Default: false.
    pub(super) publisher_confirm: bool,
    /// Whether the certificate is the login. Default: false.
    sasl_external: bool,
    /// `single` keeps messages in order; `parallel` does not wait for one before it begins the next. Default: `parallel`.
    concurrency: Concurrency,
    /// What the server calls the connection. Default: none.
    client_name: String,
    /// How often each side says that it is alive. Default: 10 s.
    #[serde(rename = "heartBeat", with = "duration")]
    heartbeat: Duration,
    /// Whether properties and headers of a message are in its metadata. Default: false.
    pub(super) publish_message_properties_to_metadata: bool,
    /// Life of a message whose request names none. Default: for ever.
    #[serde(skip)]
    pub(super) default_ttl: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connection_string: String::new(),
            protocol: String::new(),
            hostname: "localhost".to_owned(),
            username: String::new(),
            password: String::new(),
            consumer_id: String::new(),
            durable: true,
            enable_dead_letter: false,
            delete_when_unused: true,
            auto_ack: false,
            requeue_in_failure: false,
            delivery_mode: 0,
            prefetch_count: 0,
            reconnect_wait: Duration::from_secs(3),
            max_len: 0,
            max_len_bytes: 0,
            exchange_kind: "fanout".to_owned(),
            publisher_confirm: false,
            sasl_external: false,
            concurrency: Concurrency::Parallel,
            client_name: String::new(),
            heartbeat: Duration::from_secs(10),
            publish_message_properties_to_metadata: false,
            default_ttl: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Concurrency {
    Single,
    Parallel,
}

impl Config {
    /// # Errors
    /// `InvalidMetadata` that names the property, what was found and what is allowed.
    pub(super) fn parse(properties: &Properties) -> Result<Self> {
        let mut config: Self = properties.parse()?;
        if config.delivery_mode > 2 {
            return Err(invalid("invalid RabbitMQ delivery mode, accepted values are between 0 and 2"));
        }
        config.exchange_kind()?;
        let own = properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        config.default_ttl = ttl::parse(&own)
            .map_err(|error| invalid(&format!("parse RabbitMQ ttl metadata with error: {error}")))?
            .filter(|life| !life.is_zero());
        Ok(config)
    }

    /// # Errors
    /// `InvalidMetadata` if the address does not parse or contradicts another setting.
    pub(super) fn endpoint(&self, tls: &tls::Settings) -> Result<Endpoint> {
        let mut endpoint = Endpoint::new(&self.address()?, &self.client_name, tls)?.with_heartbeat(self.heartbeat);
        if self.sasl_external {
            if tls.ca_cert.is_empty() || tls.client_cert.is_empty() {
                return Err(ComponentError::metadata(
                    "saslExternal can only be set to true, when all these properties are set: caCert, clientCert, \
                     clientKey",
                ));
            }
            if endpoint.is_secure() {
                endpoint = endpoint.with_certificate_login();
            }
        }
        Ok(endpoint)
    }

    /// # Errors
    /// `InvalidMetadata` if there is no such kind.
    pub(super) fn exchange_kind(&self) -> Result<ExchangeKind> {
        match self.exchange_kind.as_str() {
            "fanout" => Ok(ExchangeKind::Fanout),
            "topic" => Ok(ExchangeKind::Topic),
            "direct" => Ok(ExchangeKind::Direct),
            "headers" => Ok(ExchangeKind::Headers),
            other => Err(invalid(&format!("invalid RabbitMQ exchange kind {other}"))),
        }
    }

    pub(super) fn prefetch(&self) -> u16 {
        match self.prefetch_count {
            0 => PREFETCH,
            count => count.into(),
        }
    }

    /// Most messages that are delivered at the same time.
    pub(super) fn at_once(&self) -> usize {
        match self.concurrency {
            Concurrency::Single => 1,
            Concurrency::Parallel => self.prefetch().into(),
        }
    }

    fn address(&self) -> Result<String> {
        if !self.connection_string.is_empty() {
            let scheme = self.connection_string.split_once("://").map_or("", |(scheme, _)| scheme);
            if !self.protocol.is_empty() && self.protocol != scheme {
                let protocol = &self.protocol;
                return Err(invalid(&format!(
                    "protocol does not match connection string, protocol: {protocol}, connection string: {scheme}://…"
                )));
            }
            return Ok(self.connection_string.clone());
        }
        let protocol = if self.protocol.is_empty() { "amqp" } else { &self.protocol };
        let login = match (&*self.username, &*self.password) {
            ("", _) => String::new(),
            (user, "") => format!("{}@", escape(user)),
            (user, password) => format!("{}:{}@", escape(user), escape(password)),
        };
        Ok(format!("{protocol}://{login}{}", self.hostname))
    }
}

fn escape(text: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

/// An error with the words before it that Dapr has there.
fn invalid(message: &str) -> ComponentError {
    ComponentError::metadata(format!("rabbitmq pub/sub error: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::parse(&pairs.iter().copied().collect())
    }

    #[test]
    fn the_address_is_given_whole_or_in_parts() {
        for (pairs, expected) in [
            (vec![], "amqp://localhost"),
            (vec![("connectionString", "amqp://u:p@h:1/v")], "amqp://u:p@h:1/v"),
            (vec![("host", "amqp://old")], "amqp://old"),
            (vec![("hostname", "h:1"), ("username", "u"), ("password", "p/@")], "amqp://u:p%2F%40@h:1"),
            (vec![("hostname", "h"), ("protocol", "amqps"), ("username", "u")], "amqps://u@h"),
            (vec![("connectionString", "amqps://h"), ("protocol", "amqps")], "amqps://h"),
        ] {
            assert_eq!(config(&pairs).expect("valid").address().expect("valid"), expected);
        }
        let error =
            config(&[("connectionString", "amqp://u:secret@h"), ("protocol", "amqps")]).expect("valid").address();
        let error = error.expect_err("they contradict each other").to_string();
        assert!(error.contains("protocol does not match") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused_as_dapr_does() {
        for (pair, message) in [
            (("deliveryMode", "3"), "invalid RabbitMQ delivery mode, accepted values are between 0 and 2"),
            (("exchangeKind", "ring"), "invalid RabbitMQ exchange kind ring"),
            (("ttlInSeconds", "soon"), "parse RabbitMQ ttl metadata with error: ttl value must be a valid integer"),
        ] {
            let error = config(&[pair]).err().expect("invalid").to_string();
            assert!(error.starts_with(&format!("rabbitmq pub/sub error: {message}")), "{error}");
        }
        let external = config(&[("saslExternal", "true")]).expect("valid").endpoint(&tls::Settings::default());
        assert!(external.err().expect("no certificate").to_string().starts_with("saslExternal can only be set"));
    }

    #[test]
    fn what_is_in_hand_is_limited_even_if_nobody_says_so() {
        assert_eq!((config(&[]).expect("valid").prefetch(), config(&[]).expect("valid").at_once()), (256, 256));
        let few = config(&[("prefetchCount", "5")]).expect("valid");
        assert_eq!((few.prefetch(), few.at_once()), (5, 5));
        let single = config(&[("prefetchCount", "5"), ("concurrency", "single")]).expect("valid");
        assert_eq!((single.prefetch(), single.at_once()), (5, 1));
    }

    #[test]
    fn durations_are_seconds_or_durations() {
        let config = config(&[("reconnectWaitSeconds", "1"), ("heartBeat", "500ms"), ("ttlInSeconds", "60")]);
        let config = config.expect("valid");
        assert_eq!(config.reconnect_wait, Duration::from_secs(1));
        assert_eq!(config.heartbeat, Duration::from_millis(500));
        assert_eq!(config.default_ttl, Some(Duration::from_secs(60)));
    }
}
