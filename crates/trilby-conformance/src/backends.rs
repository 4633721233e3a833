//! How to reach a real server for each component type. One entry a component; a type without one fails the suite.

use crate::cases::{bindings::OF_ONE_TYPE, configuration};

/// What stands for the address of the backend in a resource.
const ADDRESS: &str = "ADDRESS";
/// What stands for a folder of the test's own.
const FOLDER: &str = "FOLDER";

/// A component to test.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The component's name in the suite, also part of the names of its tests.
    pub name: &'static str,
    /// Type and version as the catalog has them.
    pub type_name: &'static str,
    /// Version as the catalog has it.
    pub version: &'static str,
    /// `spec.metadata` as YAML flow pairs, with [`ADDRESS`] and [`FOLDER`].
    metadata: &'static str,
    /// Environment variable with the address of a real server, if one is needed.
    variable: Option<&'static str>,
    /// Whether it is tested through every door, not only the embedded one.
    pub every_door: bool,
    /// Cases in which Dapr's component behaves differently, and ours as Dapr's.
    pub except: &'static [&'static str],
}

/// State stores.
pub const STATE: &[Backend] = &[
    Backend {
        name: "in-memory",
        type_name: "state.in-memory",
        version: "v1",
        metadata: "",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "sqlite",
        type_name: "state.sqlite",
        version: "v1",
        metadata: "{ name: connectionString, value: 'FOLDER/state.db' }",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "redis",
        type_name: "state.redis",
        version: "v1",
        metadata: "{ name: redisHost, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_REDIS"),
        every_door: false,
        except: &[],
    },
    Backend {
        name: "postgresql-v1",
        type_name: "state.postgresql",
        version: "v1",
        metadata: "{ name: connectionString, value: 'ADDRESS' }, { name: tableName, value: suite_v1 }, \
                   { name: metadataTableName, value: suite_v1_metadata }",
        variable: Some("TRILBY_TEST_POSTGRES"),
        every_door: false,
        except: &[],
    },
    Backend {
        name: "postgresql-v2",
        type_name: "state.postgresql",
        version: "v2",
        metadata: "{ name: connectionString, value: 'ADDRESS' }, { name: tablePrefix, value: suite_v2_ }, \
                   { name: metadataTableName, value: suite_v2_metadata }",
        variable: Some("TRILBY_TEST_POSTGRES"),
        every_door: false,
        except: &[],
    },
];

/// The environment variable that the suite sets for the secret store over the environment.
pub const SECRET_VARIABLE: (&str, &str) = ("TRILBY_SUITE_plain", "p");

/// Secret stores. Each is set up with the secret `plain` = `p`.
pub const SECRETS: &[Backend] = &[
    Backend {
        name: "local-file",
        type_name: "secretstores.local.file",
        version: "v1",
        metadata: "{ name: secretsFile, value: 'FOLDER/secrets.json' }",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "local-env",
        type_name: "secretstores.local.env",
        version: "v1",
        metadata: "{ name: prefix, value: 'TRILBY_SUITE_' }",
        variable: None,
        every_door: false,
        // A variable that is not set is an empty secret.
        except: &["a_secret_that_does_not_exist_is_an_error_that_names_it"],
    },
];

/// Brokers.
pub const PUBSUB: &[Backend] = &[
    Backend {
        name: "messages-in-memory",
        type_name: "pubsub.in-memory",
        version: "v1",
        metadata: "",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "messages-jetstream",
        type_name: "pubsub.jetstream",
        version: "v1",
        metadata: "{ name: natsURL, value: 'ADDRESS' }",
        variable: Some(NATS),
        every_door: false,
        except: &[],
    },
    Backend {
        name: "messages-kafka",
        type_name: "pubsub.kafka",
        version: "v1",
        // Every subscription joins the consumer group; members hear of that with their next heartbeat.
        metadata: "{ name: brokers, value: 'ADDRESS' }, { name: authType, value: none }, \
                   { name: heartbeatInterval, value: 100ms }, { name: backOffDuration, value: 100ms }",
        variable: Some("TRILBY_TEST_KAFKA"),
        every_door: false,
        except: &[],
    },
    Backend {
        name: "messages-mqtt",
        type_name: "pubsub.mqtt3",
        version: "v1",
        metadata: "{ name: url, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_MQTT"),
        every_door: false,
        // Messages are handled at the same time.
        except: &["events_of_one_publisher_arrive_in_order"],
    },
    Backend {
        name: "messages-rabbitmq",
        type_name: "pubsub.rabbitmq",
        version: "v1",
        metadata: "{ name: connectionString, value: 'ADDRESS' }, { name: concurrency, value: single }, \
                   { name: requeueInFailure, value: 'true' }",
        variable: Some("TRILBY_TEST_RABBITMQ"),
        every_door: false,
        except: &[],
    },
    Backend {
        name: "messages-redis",
        type_name: "pubsub.redis",
        version: "v1",
        metadata: "{ name: redisHost, value: 'ADDRESS' }, { name: concurrency, value: '1' }, \
                   { name: redeliverInterval, value: 100ms }, { name: processingTimeout, value: 1s }",
        variable: Some("TRILBY_TEST_REDIS"),
        every_door: false,
        except: &[],
    },
];

/// Says where NATS is. The suite makes a stream there, as JetStream's users do: the component makes none.
pub const NATS: &str = "TRILBY_TEST_NATS";

/// Cryptography providers. Each is set up with the AES-256 key `sym`.
pub const CRYPTO: &[Backend] = &[
    Backend {
        name: "key-folder",
        type_name: "crypto.dapr.localstorage",
        version: "v1",
        metadata: "{ name: path, value: 'FOLDER/keys' }",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "key-set",
        type_name: "crypto.dapr.jwks",
        version: "v1",
        metadata: "{ name: jwks, value: '{\"keys\":[{\"kid\":\"sym\",\"kty\":\"oct\",\
                   \"k\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"}]}' }",
        variable: None,
        every_door: false,
        except: &[],
    },
];

/// The key `sym` as the folder of [`CRYPTO`] has it: a file's name and content.
pub const KEY_FILE: (&str, &str) = ("sym", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");

/// Language models: the one that repeats what it hears.
pub const CONVERSATION: &[Backend] = &[Backend {
    name: "echo",
    type_name: "conversation.echo",
    version: "v1",
    metadata: "",
    variable: None,
    every_door: true,
    except: &[],
}];

/// Lock stores.
pub const LOCK: &[Backend] = &[
    Backend {
        name: "locks-in-memory",
        type_name: "lock.in-memory",
        version: "v1",
        metadata: "",
        variable: None,
        every_door: true,
        except: &[],
    },
    Backend {
        name: "locks-redis",
        type_name: "lock.redis",
        version: "v1",
        metadata: "{ name: redisHost, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_REDIS"),
        every_door: true,
        except: &[],
    },
];

/// A configuration file that nobody changes.
pub struct Fixed {
    /// The component's name.
    pub name: &'static str,
    /// The only key.
    pub key: &'static str,
    /// Its value.
    pub value: &'static str,
}

/// The file `settings.json`.
pub const FIXED: Fixed = Fixed { name: "settings", key: "color", value: "blue" };

/// The component whose configuration file the suite changes, and the file's name in the folder of the binding `files`.
pub const CHANGING_FILE: (&str, &str) = ("settings-changing", "settings.json");

/// The key of `settings-redis` that the mirror guest watches: a guest says when it starts what it wants to hear of.
pub const WATCHED_KEY: &str = "suite-watched";

/// The state store in which the mirror guest notes changes, as `changed-STORE-KEY`.
pub const NOTES: &str = "in-memory";

/// Says where PostgreSQL is. The suite makes a table and its trigger there, as operators do: the component makes none.
pub const POSTGRES: &str = "TRILBY_TEST_POSTGRES";

/// What makes the table of [`CONFIGURATION`].
pub const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS suite_settings
        (key varchar PRIMARY KEY, value varchar NOT NULL, version varchar NOT NULL, metadata json);
    CREATE OR REPLACE FUNCTION suite_settings_tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('suite_settings', json_build_object('action', TG_OP, 'data', row_to_json(NEW))::text);
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE ON suite_settings
        FOR EACH ROW EXECUTE FUNCTION suite_settings_tell()";

/// Configuration stores.
pub const CONFIGURATION: &[Backend] = &[
    Backend {
        name: FIXED.name,
        type_name: "configuration.local.file",
        version: "v1",
        metadata: "{ name: path, value: 'FOLDER/settings.json' }",
        variable: None,
        every_door: true,
        except: &[configuration::WATCHING],
    },
    Backend {
        name: CHANGING_FILE.0,
        type_name: "configuration.local.file",
        version: "v1",
        metadata: "{ name: path, value: 'FOLDER/files/settings.json' }, { name: pollInterval, value: 20ms }",
        variable: None,
        // Two doors would overwrite each other's file.
        every_door: false,
        except: &[configuration::READING],
    },
    Backend {
        name: "settings-redis",
        type_name: "configuration.redis",
        version: "v1",
        metadata: "{ name: redisHost, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_REDIS"),
        every_door: true,
        except: &[],
    },
    Backend {
        name: "settings-postgresql",
        type_name: "configuration.postgresql",
        version: "v1",
        metadata: "{ name: connectionString, value: 'ADDRESS' }, { name: table, value: suite_settings }, \
                   { name: notifyChannel, value: suite_settings }",
        variable: Some(POSTGRES),
        every_door: false,
        except: &[],
    },
];

/// The program of [`BINDINGS`]: prints its arguments, each with a zero behind it, and its input.
pub const PROGRAM: &str = include_str!("../../../fixtures/programs/echo.wat");

/// Bindings. Those whose server is somewhere else are only asked what needs none.
pub const BINDINGS: &[Backend] = &[
    Backend {
        name: "clock",
        type_name: "bindings.cron",
        version: "v1",
        metadata: "{ name: schedule, value: '@hourly' }",
        variable: None,
        every_door: false,
        except: &[],
    },
    Backend {
        name: "web",
        type_name: "bindings.http",
        version: "v1",
        metadata: "{ name: url, value: 'http://127.0.0.1:1' }",
        variable: None,
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "files",
        type_name: "bindings.localstorage",
        version: "v1",
        metadata: "{ name: rootPath, value: 'FOLDER/files' }",
        variable: None,
        every_door: true,
        except: &["a_program_gets_arguments_and_input_and_answers"],
    },
    Backend {
        name: "values",
        type_name: "bindings.redis",
        version: "v1",
        metadata: "{ name: redisHost, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_REDIS"),
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "statements",
        type_name: "bindings.postgresql",
        version: "v1",
        metadata: "{ name: connectionString, value: 'ADDRESS' }",
        variable: Some("TRILBY_TEST_POSTGRES"),
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "records",
        type_name: "bindings.kafka",
        version: "v1",
        metadata: "{ name: brokers, value: 'ADDRESS' }, { name: authType, value: none }, \
                   { name: publishTopic, value: suite }, { name: direction, value: output }",
        variable: Some("TRILBY_TEST_KAFKA"),
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "readings",
        type_name: "bindings.mqtt3",
        version: "v1",
        metadata: "{ name: url, value: 'ADDRESS' }, { name: topic, value: suite }, { name: consumerID, value: suite }, \
                   { name: direction, value: output }",
        variable: Some("TRILBY_TEST_MQTT"),
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "tasks",
        type_name: "bindings.rabbitmq",
        version: "v1",
        metadata: "{ name: host, value: 'ADDRESS' }, { name: queueName, value: suite }, \
                   { name: deleteWhenUnused, value: 'true' }, { name: direction, value: output }",
        variable: Some("TRILBY_TEST_RABBITMQ"),
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "mail",
        type_name: "bindings.smtp",
        version: "v1",
        metadata: "{ name: host, value: 127.0.0.1 }, { name: port, value: '1' }",
        variable: None,
        every_door: false,
        except: OF_ONE_TYPE,
    },
    Backend {
        name: "programs",
        type_name: "bindings.wasm",
        version: "v1",
        metadata: "{ name: url, value: 'file://FOLDER/tool.wasm' }",
        variable: None,
        every_door: true,
        except: &["a_file_holds_what_was_sent"],
    },
];

/// Types that `trilby-components/tests` covers instead, since nobody can start their servers.
pub const TESTED_APART: &[(&str, &str)] = &[
    ("conversation.deepseek", "v1"),
    ("conversation.huggingface", "v1"),
    ("conversation.mistral", "v1"),
    ("conversation.ollama", "v1"),
    ("conversation.openai", "v1"),
    ("secretstores.hashicorp.vault", "v1"),
    ("secretstores.kubernetes", "v1"),
];

impl Backend {
    /// The component's resource, or why it cannot be tested here.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub fn resource(&self, folder: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let address = match self.variable {
            None => String::new(),
            Some(name) => variable(name).ok_or_else(|| format!("{name} is not set"))?,
        };
        let metadata = self.metadata.replace(ADDRESS, &address).replace(FOLDER, folder);
        let (name, type_name, version) = (self.name, self.type_name, self.version);
        Ok(format!(
            "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: {name} }}\n\
             spec: {{ type: {type_name}, version: {version}, metadata: [{metadata}] }}\n"
        ))
    }
}
