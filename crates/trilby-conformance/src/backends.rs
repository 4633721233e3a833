//! How to reach a real server for each component type. One entry a component; a type without one fails the suite.

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
