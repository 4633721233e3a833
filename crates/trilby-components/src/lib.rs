//! The components that Trilby brings: one module each, and one table that lists them.
//!
//! To add one, copy `state/in_memory.rs`, give it a row in [`builtins()`], and, if it needs a driver, a feature of its
//! own in `Cargo.toml`. The documentation, `trilby components`, `/v1.0/metadata` and the conformance suite all read
//! the table.

pub mod binding;
pub mod configuration;
pub mod conversation;
#[cfg(feature = "crypto")]
pub mod crypto;
pub mod lock;
pub mod pubsub;
pub mod secret;
pub mod state;

#[cfg(any(feature = "http-client", feature = "wasm"))]
mod byte_size;
#[cfg(any(feature = "nats", feature = "redis"))]
mod cryptography;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod escape;
#[cfg(feature = "http-client")]
mod http;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "http-client", feature = "rabbitmq"))]
mod tls;
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
mod ttl;

use trilby_component::{Catalog, catalog::Entry};

/// Rows of `block "type"/"version" if "feature" = constructor, "what it is";`, added to the catalog in turn.
macro_rules! builtins {
    ($catalog:ident: $($block:ident $type:tt / $version:tt $(if $feature:tt)? = $open:expr, $about:tt;)*) => {
        $($(#[cfg(feature = $feature)])? {
            $catalog.$block(Entry { type_name: $type, version: $version, about: $about }, $open);
        })*
    };
}

/// What components share with the process that they are in.
#[derive(Clone, Default)]
pub struct Host {
    /// Runs programs. Default: one of its own, without a cache.
    #[cfg(feature = "wasm")]
    pub engine: trilby_wasm::Engine,
    /// The cluster that it is in. Default: none.
    #[cfg(feature = "kubernetes")]
    pub cluster: secret::kubernetes::Surroundings,
}

/// Every component of this build, on its own.
#[must_use]
pub fn builtins() -> Catalog {
    builtins_with(&Host::default())
}

/// Every component of this build, with what `host` shares with them.
#[must_use]
pub fn builtins_with(host: &Host) -> Catalog {
    #[cfg(feature = "wasm")]
    let wasm = {
        let engine = host.engine.clone();
        move |request| binding::wasm::open(engine.clone(), request)
    };
    #[cfg(feature = "kubernetes")]
    let kubernetes = {
        let cluster = host.cluster.clone();
        move |request| secret::kubernetes::open(cluster.clone(), request)
    };
    #[cfg(not(any(feature = "kubernetes", feature = "wasm")))]
    let Host {} = host;
    let mut catalog = Catalog::new();
    builtins! { catalog:
        binding "bindings.cron"/"v1" if "cron" = binding::cron::open, "Events by the clock";
        binding "bindings.http"/"v1" if "http-client" = binding::http::open, "Requests to an HTTP server";
        binding "bindings.localstorage"/"v1" if "local-storage" = binding::local_storage::open, "Files in a folder of this machine";
        binding "bindings.kafka"/"v1" if "kafka" = binding::kafka::open, "Topics of Apache Kafka, read and written";
        binding "bindings.mqtt"/"v1" if "mqtt" = binding::mqtt3::open, "Another name of bindings.mqtt3";
        binding "bindings.mqtt3"/"v1" if "mqtt" = binding::mqtt3::open, "A topic of an MQTT 3.1.1 server, read and written";
        binding "bindings.rabbitmq"/"v1" if "rabbitmq" = binding::rabbitmq::open, "A queue of RabbitMQ, read and written";
        binding "bindings.redis"/"v1" if "redis" = binding::redis::open, "Single keys of Redis, written, read, counted up and deleted";
        binding "bindings.postgres"/"v1" if "postgresql" = binding::postgresql::open, "Another name of bindings.postgresql";
        binding "bindings.postgresql"/"v1" if "postgresql" = binding::postgresql::open, "SQL statements on PostgreSQL";
        binding "bindings.smtp"/"v1" if "smtp" = binding::smtp::open, "Mail by SMTP";
        binding "bindings.wasm"/"v1" if "wasm" = wasm, "WASI programs, run in a sandbox for each call";
        configuration "configuration.local.file"/"v1" = configuration::local_file::open, "Keys of a JSON file that is watched, for development";
        configuration "configuration.postgres"/"v1" if "postgresql" = configuration::postgresql::open, "Another name of configuration.postgresql";
        configuration "configuration.postgresql"/"v1" if "postgresql" = configuration::postgresql::open, "Rows in a PostgreSQL table, watched through notifications";
        configuration "configuration.redis"/"v1" if "redis" = configuration::redis::open, "Strings in Redis, watched through keyspace notifications";
        conversation "conversation.deepseek"/"v1" if "conversation" = conversation::openai::deepseek, "DeepSeek's language models";
        conversation "conversation.echo"/"v1" = conversation::echo::open, "Says again what it was told, for development";
        conversation "conversation.huggingface"/"v1" if "conversation" = conversation::openai::huggingface, "Language models on Hugging Face";
        conversation "conversation.mistral"/"v1" if "conversation" = conversation::openai::mistral, "Mistral's language models";
        conversation "conversation.ollama"/"v1" if "conversation" = conversation::openai::ollama, "Language models on a server of one's own";
        conversation "conversation.openai"/"v1" if "conversation" = conversation::openai::open, "OpenAI's language models, on Azure too, and servers like it";
        crypto "crypto.dapr.jwks"/"v1" if "crypto" = crypto::jwks::open, "The keys of a JSON Web Key Set";
        crypto "crypto.dapr.localstorage"/"v1" if "crypto" = crypto::local_storage::open, "Keys in the files of a folder";
        lock "lock.in-memory"/"v1" = lock::in_memory::open, "Locks in this process's memory, gone when it ends";
        lock "lock.redis"/"v1" if "redis" = lock::redis::open, "Locks in Redis, each a key that expires";
        pubsub "pubsub.kafka"/"v1" if "kafka" = pubsub::kafka::open, "Topics of Apache Kafka, read by consumer groups";
        pubsub "pubsub.mqtt"/"v1" if "mqtt" = pubsub::mqtt3::open, "Another name of pubsub.mqtt3";
        pubsub "pubsub.mqtt3"/"v1" if "mqtt" = pubsub::mqtt3::open, "Topics of an MQTT 3.1.1 server";
        pubsub "pubsub.rabbitmq"/"v1" if "rabbitmq" = pubsub::rabbitmq::open, "Exchanges of RabbitMQ, each consumer id a queue";
        pubsub "pubsub.in-memory"/"v1" = pubsub::in_memory::open, "Messages within this process, gone when it ends";
        pubsub "pubsub.jetstream"/"v1" if "nats" = pubsub::jetstream::open, "Streams of NATS JetStream";
        pubsub "pubsub.redis"/"v1" if "redis" = pubsub::redis::open, "Streams in Redis, read by consumer groups";
        secret "secretstores.hashicorp.vault"/"v1" if "vault" = secret::hashicorp_vault::open, "Secrets in HashiCorp Vault or OpenBao";
        secret "secretstores.kubernetes"/"v1" if "kubernetes" = kubernetes, "Secrets of a Kubernetes namespace";
        secret "secretstores.local.env"/"v1" = secret::local_env::open, "Environment variables as secrets, for development";
        secret "secretstores.local.file"/"v1" = secret::local_file::open, "A JSON file of secrets, for development";
        state "state.in-memory"/"v1" = state::in_memory::open, "Items in this process's memory, gone when it ends";
        state "state.postgresql"/"v1" if "postgresql" = state::postgresql::v1::open, "Items in a PostgreSQL table, values as JSON";
        state "state.postgresql"/"v2" if "postgresql" = state::postgresql::v2::open, "Items in a PostgreSQL table, values as bytes";
        state "state.postgres"/"v1" if "postgresql" = state::postgresql::v1::open, "Another name of state.postgresql";
        state "state.postgres"/"v2" if "postgresql" = state::postgresql::v2::open, "Another name of state.postgresql v2";
        state "state.redis"/"v1" if "redis" = state::redis::open, "Items in Redis, each a hash, or a document where RedisJSON is there";
        state "state.sqlite"/"v1" if "sqlite" = state::sqlite::open, "Items in a SQLite file that processes may share";
        state "state.sqlite3"/"v1" if "sqlite" = state::sqlite::open, "Another name of state.sqlite";
    }
    catalog
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_it_is() {
        for entry in builtins().entries() {
            assert!(!entry.about.is_empty() && !entry.about.ends_with('.'), "{entry:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_type_is_answered_with_the_known_ones() {
        let error = builtins().open_state("state.msql", "v1", Default::default()).await.err().expect("no such type");
        let start = "unknown type state.msql/v1; this build has state.in-memory/v1";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}
