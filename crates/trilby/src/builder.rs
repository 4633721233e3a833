//! Collecting what a runtime is made of. Nothing is read or opened before [`Builder::start`].

use std::path::PathBuf;

use trilby_component::Catalog;
use trilby_runtime::{Configuration, Env, Resources, configuration::Layers};

use crate::{AppSpec, Embedded, Error, Trilby, VERSION, start};

/// A place that YAML is read from.
enum ResourceSource {
    Directory(PathBuf),
    File(PathBuf),
    Text { name: String, text: String },
    Read(Resources),
}

/// A place that a Configuration is read from.
enum ConfigurationSource {
    File(PathBuf),
    Text { name: String, text: String },
}

/// What a runtime is to be made of. See [`Trilby::builder`].
#[must_use]
pub struct Builder {
    pub(crate) catalog: Option<Catalog>,
    pub(crate) env: Env,
    pub(crate) version: String,
    pub(crate) apps: Vec<AppSpec>,
    #[cfg(feature = "wasm")]
    pub(crate) engine: trilby_wasm::Engine,
    resources: Vec<ResourceSource>,
    configuration: Vec<ConfigurationSource>,
    embedded: Option<Embedded>,
    strict: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            catalog: None,
            env: Env::default(),
            version: VERSION.to_owned(),
            apps: Vec::new(),
            #[cfg(feature = "wasm")]
            engine: trilby_wasm::Engine::default(),
            resources: Vec::new(),
            configuration: Vec::new(),
            embedded: None,
            strict: true,
        }
    }
}

impl Builder {
    /// The component types that there are. Default: every built-in one of this build.
    pub fn catalog(mut self, catalog: Catalog) -> Self {
        self.catalog = Some(catalog);
        self
    }

    /// The environment variables that resources and Configurations may name, and that tell components of the Kubernetes
    /// cluster around them. Default: none; the process's own are not read.
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// The version that metadata shows. Default: [`VERSION`].
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Reads the `.yaml` and `.yml` files of a directory. May be said more than once.
    pub fn resources_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.resources.push(ResourceSource::Directory(directory.into()));
        self
    }

    /// Reads one file of resources.
    pub fn resources_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.resources.push(ResourceSource::File(path.into()));
        self
    }

    /// Reads resources from a text. `name` stands for the file in messages.
    pub fn resources_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.resources.push(ResourceSource::Text { name: name.into(), text: text.into() });
        self
    }

    /// Adds resources that were read already.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources.push(ResourceSource::Read(resources));
        self
    }

    /// Adds the components that need nothing: state in a file, secrets from a file.
    pub fn embedded(mut self, embedded: Embedded) -> Self {
        self.embedded = Some(embedded);
        self
    }

    /// Lays a Configuration file over those before it. It holds for every app without a Configuration of its own.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.configuration.push(ConfigurationSource::File(path.into()));
        self
    }

    /// As [`config_file`](Self::config_file), from a text. `name` stands for the file in messages.
    pub fn config_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.configuration.push(ConfigurationSource::Text { name: name.into(), text: text.into() });
        self
    }

    /// Whether a resource that cannot be read is an error, or is skipped with a warning as daprd does. Default true.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Runs Wasm apps, and components that run programs, in this engine, which other runtimes may share. Default: one of its own, without a cache.
    #[cfg(feature = "wasm")]
    pub fn engine(mut self, engine: trilby_wasm::Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Adds an app.
    pub fn app(mut self, app: AppSpec) -> Self {
        self.apps.push(app);
        self
    }

    /// Opens the components, loads and connects the apps, and opens the doors; returns when all can be called.
    ///
    /// An app that is a server elsewhere may come up later: its health says so. Dropping the future abandons the start.
    ///
    /// # Errors
    /// The first thing that is wrong. What was opened before it is closed again.
    pub async fn start(self) -> Result<Trilby, Error> {
        start::start(self).await
    }

    /// The component types that there are.
    pub(crate) fn take_catalog(&mut self) -> Catalog {
        self.catalog.take().unwrap_or_else(|| {
            #[cfg(feature = "components")]
            return trilby_components::builtins_with(&trilby_components::Host {
                #[cfg(feature = "wasm")]
                engine: self.engine.clone(),
                cluster: trilby_components::secret::kubernetes::Surroundings::read(|name| self.env.get(name)),
            });
            #[cfg(not(feature = "components"))]
            Catalog::new()
        })
    }

    pub(crate) fn read_resources(&mut self) -> Result<Resources, Error> {
        let mut resources = if self.strict { Resources::strict() } else { Resources::lenient() };
        if let Some(embedded) = &self.embedded {
            resources.append(embedded.read()?);
        }
        for source in self.resources.drain(..) {
            match source {
                ResourceSource::Directory(directory) => resources.read_directory(&directory)?,
                ResourceSource::File(path) => resources.read_file(&path)?,
                ResourceSource::Text { name, text } => resources.read_text(&name, &text)?,
                ResourceSource::Read(read) => resources.append(read),
            }
        }
        Ok(resources)
    }

    pub(crate) fn read_configuration(&self) -> Result<Configuration, Error> {
        let mut layers = Layers::default();
        for source in &self.configuration {
            match source {
                ConfigurationSource::File(path) => layers.add_file(path, &self.env)?,
                ConfigurationSource::Text { name, text } => layers.add_text(name, text, &self.env)?,
            }
        }
        Ok(layers.finish()?)
    }
}
