//! Configuration stores, one module each, and what they share.

pub mod local_file;
#[cfg(feature = "postgresql")]
pub mod postgresql;
#[cfg(feature = "redis")]
pub mod redis;

use trilby_component::configuration::{Item, Items};

/// What is new or different, and what is gone, which is an item without a value.
fn changes(before: &Items, after: &Items) -> Items {
    let new = after.iter().filter(|(key, item)| before.get(*key) != Some(item));
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Item::default()));
    new.map(|(key, item)| (key.clone(), item.clone())).chain(gone).collect()
}
