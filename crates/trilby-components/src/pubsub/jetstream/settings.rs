//! Settings of `pubsub.jetstream`, with the names and defaults that Dapr has for them.

use std::time::Duration;

use async_nats::{
    datetime,
    jetstream::consumer::{AckPolicy, DeliverPolicy, push},
};
use serde::Deserialize;
use trilby_component::{ComponentError, Properties, Result, properties::duration};

/// Metadata of the component. What is not set is left to the server.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Settings {
    /// Where the servers are: `nats://host:port` or, with TLS, `tls://host:port`; several, separated by commas. May hold
    /// a user and password, or a token in place of the user. Required.
    #[serde(rename = "natsURL")]
    pub(super) nats_url: String,
    /// What the server calls the connection.
    pub(super) name: String,
    /// Token to log in with.
    pub(super) token: String,
    /// Who we are, as the operator of the servers has signed it; needs `seedKey`.
    pub(super) jwt: String,
    /// The secret key to `jwt`.
    pub(super) seed_key: String,
    /// Path of our certificate, PEM; needs `tls_client_key`.
    #[serde(rename = "tls_client_cert")]
    pub(super) tls_client_cert: String,
    /// Path of the key to `tls_client_cert`, PEM.
    #[serde(rename = "tls_client_key")]
    pub(super) tls_client_key: String,
    /// Domain of JetStream.
    pub(super) domain: String,
    /// What subjects of JetStream's API begin with; counts before `domain`.
    pub(super) api_prefix: String,
    /// The stream to read. Default: the one that holds the topic.
    pub(super) stream_name: String,
    /// Name under which the server remembers what was read. Default: it does not, beyond the life of a subscription.
    pub(super) durable_name: String,
    /// Readers of one `durableName` and one such name share the messages.
    queue_group_name: String,
    /// First message, with `deliverPolicy: sequence`.
    start_sequence: u64,
    /// First time in seconds since 1970, with `deliverPolicy: time`.
    start_time: i64,
    /// Where a new consumer begins.
    deliver_policy: Start,
    /// Whether the server waits for us where it sends too fast; it wants a `heartbeat` then.
    flow_control: bool,
    /// How long a message may be in hand before it is sent again, and the pause before a message is sent again that was
    /// not handled. The server's default: 30 s.
    #[serde(with = "duration")]
    pub(super) ack_wait: Duration,
    /// How often a message is sent at most. The server's default: no limit.
    max_deliver: i64,
    /// Pauses before a message is sent again that nobody answered, separated by commas; counts before `ackWait`.
    back_off: String,
    /// How many messages may be in hand. The server's default: 1000.
    max_ack_pending: i64,
    /// On how many servers the consumer is kept.
    replicas: usize,
    /// Whether the consumer is kept in memory only.
    memory_storage: bool,
    /// Most bits per second.
    rate_limit: u64,
    /// How often the server shows that it is still there when it has nothing to send.
    #[serde(with = "duration")]
    heartbeat: Duration,
    /// What an acknowledgement says.
    ack_policy: Acknowledge,
    /// How many messages are handled at the same time: one, or as many as are in hand.
    pub(super) concurrency: Concurrency,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nats_url: String::new(),
            name: "dapr.io - pubsub.jetstream".to_owned(),
            token: String::new(),
            jwt: String::new(),
            seed_key: String::new(),
            tls_client_cert: String::new(),
            tls_client_key: String::new(),
            domain: String::new(),
            api_prefix: String::new(),
            stream_name: String::new(),
            durable_name: String::new(),
            queue_group_name: String::new(),
            start_sequence: 0,
            start_time: 0,
            deliver_policy: Start::All,
            flow_control: false,
            ack_wait: Duration::ZERO,
            max_deliver: 0,
            back_off: String::new(),
            max_ack_pending: 0,
            replicas: 0,
            memory_storage: false,
            rate_limit: 0,
            heartbeat: Duration::ZERO,
            ack_policy: Acknowledge::Explicit,
            concurrency: Concurrency::Single,
        }
    }
}

/// Where a new consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    All,
    Last,
    New,
    Sequence,
    Time,
}

/// Which messages an acknowledgement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Acknowledge {
    /// This one and all before it.
    All,
    /// There is none.
    None,
    /// This one. As in Dapr, any other word means that too.
    #[serde(other)]
    Explicit,
}

/// How many messages are handled at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Concurrency {
    Single,
    Parallel,
}

impl Settings {
    /// # Errors
    /// `InvalidMetadata` that names what is missing or cannot be.
    pub(super) fn parse(properties: &Properties) -> Result<Self> {
        let settings: Self = properties.parse()?;
        let both = [
            (&settings.jwt, &settings.seed_key, "jwt", "seed key"),
            (&settings.tls_client_cert, &settings.tls_client_key, "tls client cert", "tls client key"),
        ];
        if settings.nats_url.is_empty() {
            return Err(ComponentError::metadata(
                "missing nats URL; set natsURL to an address such as nats://host:4222",
            ));
        }
        for (first, second, first_name, second_name) in both {
            match (first.is_empty(), second.is_empty()) {
                (false, true) => return Err(ComponentError::metadata(format!("missing {second_name}"))),
                (true, false) => return Err(ComponentError::metadata(format!("missing {first_name}"))),
                _ => {}
            }
        }
        settings.back_off()?;
        settings.deliver_policy()?;
        Ok(settings)
    }

    /// The consumer that reads `topic`, delivering to `inbox`; from message `first` on, if that is given.
    ///
    /// # Errors
    /// None that [`parse`](Self::parse) did not find.
    pub(super) fn consumer(&self, topic: &str, inbox: String, first: Option<u64>) -> Result<push::Config> {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(push::Config {
            deliver_subject: inbox,
            durable_name: some(&self.durable_name),
            deliver_group: some(&self.queue_group_name),
            deliver_policy: match first {
                Some(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
                None => self.deliver_policy()?,
            },
            ack_policy: match self.ack_policy {
                Acknowledge::Explicit => AckPolicy::Explicit,
                Acknowledge::All => AckPolicy::All,
                Acknowledge::None => AckPolicy::None,
            },
            ack_wait: self.ack_wait,
            max_deliver: self.max_deliver,
            filter_subject: topic.to_owned(),
            rate_limit: self.rate_limit,
            max_ack_pending: self.max_ack_pending,
            flow_control: self.flow_control,
            idle_heartbeat: self.heartbeat,
            num_replicas: self.replicas,
            memory_storage: self.memory_storage,
            backoff: self.back_off()?,
            ..push::Config::default()
        })
    }

    fn back_off(&self) -> Result<Vec<Duration>> {
        let parts = self.back_off.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parse = |part| {
            duration::parse(part).ok_or_else(|| {
                ComponentError::metadata(format!(
                    "metadata backOff: invalid value {part:?}, expected durations such as 1s,5s,30s"
                ))
            })
        };
        parts.map(parse).collect()
    }

    fn deliver_policy(&self) -> Result<DeliverPolicy> {
        Ok(match self.deliver_policy {
            Start::All => DeliverPolicy::All,
            Start::Last => DeliverPolicy::Last,
            Start::New => DeliverPolicy::New,
            Start::Sequence => DeliverPolicy::ByStartSequence { start_sequence: self.start_sequence },
            Start::Time => {
                let nanos = i128::from(self.start_time) * 1_000_000_000;
                let start_time = datetime::from_nanos(nanos)
                    .map_err(|error| ComponentError::metadata(format!("metadata startTime: {error}")))?;
                DeliverPolicy::ByStartTime { start_time }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::parse(&[("natsURL", "nats://localhost")].iter().chain(pairs).copied().collect())
    }

    fn consumer(pairs: &[(&str, &str)]) -> push::Config {
        settings(pairs).and_then(|settings| settings.consumer("t", "in".to_owned(), None)).expect("valid")
    }

    #[test]
    fn a_consumer_has_what_the_metadata_say() {
        let bare = consumer(&[]);
        let expected = push::Config { deliver_subject: "in".into(), filter_subject: "t".into(), ..Default::default() };
        assert_eq!(bare, expected);
        let full = consumer(&[
            ("durableName", "d"),
            ("queueGroupName", "q"),
            ("flowControl", "true"),
            ("ackWait", "10s"),
            ("maxDeliver", "5"),
            ("backOff", "50ms, 1s,10s"),
            ("maxAckPending", "7"),
            ("replicas", "3"),
            ("memoryStorage", "true"),
            ("rateLimit", "1024"),
            ("heartbeat", "5s"),
            ("ackPolicy", "all"),
        ]);
        let seconds = Duration::from_secs;
        assert_eq!((full.durable_name.as_deref(), full.deliver_group.as_deref()), (Some("d"), Some("q")));
        assert_eq!((full.ack_wait, full.idle_heartbeat, full.max_deliver), (seconds(10), seconds(5), 5));
        assert_eq!(full.backoff, [Duration::from_millis(50), seconds(1), seconds(10)]);
        assert_eq!((full.max_ack_pending, full.num_replicas, full.rate_limit), (7, 3, 1024));
        assert!(full.flow_control && full.memory_storage);
        assert_eq!(full.ack_policy, AckPolicy::All);
    }

    #[test]
    fn a_consumer_begins_where_the_metadata_say() {
        let policy = |pairs: &[_]| consumer(pairs).deliver_policy;
        assert_eq!(policy(&[("deliverPolicy", "new")]), DeliverPolicy::New);
        assert_eq!(policy(&[("deliverPolicy", "last")]), DeliverPolicy::Last);
        let sequence = policy(&[("deliverPolicy", "sequence"), ("startSequence", "9")]);
        assert_eq!(sequence, DeliverPolicy::ByStartSequence { start_sequence: 9 });
        let start_time = datetime::from_nanos(1_700_000_000_000_000_000).expect("a time");
        let time = policy(&[("deliverPolicy", "time"), ("startTime", "1700000000")]);
        assert_eq!(time, DeliverPolicy::ByStartTime { start_time });
        let again = settings(&[]).and_then(|settings| settings.consumer("t", "in".to_owned(), Some(4))).expect("valid");
        assert_eq!(again.deliver_policy, DeliverPolicy::ByStartSequence { start_sequence: 4 });
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_refused() {
        assert!(
            Settings::parse(&Properties::default()).err().expect("no URL").to_string().contains("missing nats URL")
        );
        for (name, value, message) in [
            ("jwt", "x", "missing seed key"),
            ("seedKey", "x", "missing jwt"),
            ("tls_client_cert", "x", "missing tls client key"),
            ("tls_client_key", "x", "missing tls client cert"),
            ("backOff", "1s,soon", "metadata backOff: invalid value \"soon\", expected durations such as 1s,5s,30s"),
        ] {
            assert_eq!(settings(&[(name, value)]).err().expect("refused").to_string(), message);
        }
        assert!(settings(&[("deliverPolicy", "first")]).is_err());
        assert!(settings(&[("concurrency", "many")]).is_err());
        assert_eq!(consumer(&[("ackPolicy", "whatever")]).ack_policy, AckPolicy::Explicit, "as in Dapr");
    }
}
