//! From the components that are open to what each block takes: every component goes to the block of its type.

use std::sync::Arc;

use trilby_core::{
    Identity,
    bindings::{BindingComponent, Direction},
    configuration::ConfigurationComponent,
    conversation::ConversationComponent,
    crypto::CryptoComponent,
    lock::LockComponent,
    metadata,
    pubsub::{OutboxComponent, OutboxSettings, PubSubComponent, Scopes},
    secrets::SecretComponent,
    state::{self, StateComponent},
};

use crate::{
    Configuration,
    load::{Opened, Part},
};

/// A component as metadata lists it.
pub(crate) fn describe(opened: &Opened) -> metadata::Component {
    let capabilities = match &opened.part {
        Part::Binding(binding) => {
            let may = opened.properties.get("direction").map_or(Direction { input: true, output: true }, direction);
            let input = binding.input.as_ref().filter(|_| may.input).map(|_| "INPUT_BINDING");
            let output = binding.output.as_ref().filter(|_| may.output).map(|_| "OUTPUT_BINDING");
            input.into_iter().chain(output).collect()
        }
        Part::PubSub(broker) => broker.features().iter().map(|feature| feature.name()).collect(),
        Part::Secret(store) => store.features().iter().map(|feature| feature.name()).collect(),
        Part::State { store, .. } => state::capabilities(&**store),
        Part::Configuration(_) | Part::Conversation(_) | Part::Crypto(_) | Part::Lock { .. } => Vec::new(),
    };
    let component = &opened.component;
    let version = if component.version.is_empty() { "v1" } else { &component.version };
    metadata::Component {
        name: component.header.name.clone(),
        type_name: component.type_name.clone(),
        version: version.to_owned(),
        capabilities,
    }
}

fn name(opened: &Opened) -> String {
    opened.component.header.name.clone()
}

pub(crate) fn bindings(components: &[Arc<Opened>]) -> impl Iterator<Item = BindingComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Binding(binding) => Some(BindingComponent {
            name: name(opened),
            binding: Arc::clone(binding),
            route: opened.properties.get("route").map_or_else(|| name(opened), str::to_owned),
            direction: opened.properties.get("direction").map(direction),
        }),
        _ => None,
    })
}

fn direction(text: &str) -> Direction {
    let has = |word| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    Direction { input: has("input"), output: has("output") }
}

pub(crate) fn configuration(components: &[Arc<Opened>]) -> impl Iterator<Item = ConfigurationComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Configuration(store) => Some(ConfigurationComponent { name: name(opened), store: Arc::clone(store) }),
        _ => None,
    })
}

pub(crate) fn conversation(components: &[Arc<Opened>]) -> impl Iterator<Item = ConversationComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Conversation(model) => Some(ConversationComponent { name: name(opened), model: Arc::clone(model) }),
        _ => None,
    })
}

pub(crate) fn crypto(components: &[Arc<Opened>]) -> impl Iterator<Item = CryptoComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Crypto(provider) => Some(CryptoComponent { name: name(opened), provider: Arc::clone(provider) }),
        _ => None,
    })
}

pub(crate) fn lock(components: &[Arc<Opened>]) -> impl Iterator<Item = LockComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Lock { store, key_prefix } => {
            Some(LockComponent { name: name(opened), store: Arc::clone(store), key_prefix: key_prefix.clone() })
        }
        _ => None,
    })
}

pub(crate) fn pubsub<'a>(
    components: &'a [Arc<Opened>],
    app: &'a Identity,
) -> impl Iterator<Item = PubSubComponent> + 'a {
    components.iter().filter_map(|opened| match &opened.part {
        Part::PubSub(broker) => {
            let uses_namespace = opened.component.metadata.iter().any(|pair| pair.mentions("{namespace}"));
            let namespace = if uses_namespace { app.namespace_or_default() } else { "" };
            Some(PubSubComponent {
                name: name(opened),
                broker: Arc::clone(broker),
                scopes: Scopes::parse(&opened.properties, app),
                topic_prefix: namespace.to_owned(),
            })
        }
        _ => None,
    })
}

pub(crate) fn outboxes(components: &[Arc<Opened>]) -> impl Iterator<Item = OutboxComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::State { store, .. } => Some(OutboxComponent {
            name: name(opened),
            store: Arc::clone(store),
            settings: OutboxSettings::parse(&opened.properties)?,
        }),
        _ => None,
    })
}

pub(crate) fn secrets<'a>(
    components: &'a [Arc<Opened>],
    configuration: &'a Configuration,
) -> impl Iterator<Item = SecretComponent> + 'a {
    components.iter().filter_map(|opened| match &opened.part {
        Part::Secret(store) => {
            let scope = configuration.secret_scopes.get(&name(opened)).cloned().unwrap_or_default();
            Some(SecretComponent { name: name(opened), store: Arc::clone(store), scope })
        }
        _ => None,
    })
}

pub(crate) fn state(components: &[Arc<Opened>]) -> impl Iterator<Item = StateComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.part {
        Part::State { store, key_prefix, encryption } => Some(StateComponent {
            name: name(opened),
            store: Arc::clone(store),
            key_prefix: key_prefix.clone(),
            encryption: encryption.clone(),
        }),
        _ => None,
    })
}
