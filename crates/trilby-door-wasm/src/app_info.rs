//! What an app may know about itself.

use crate::{guest::Guest, wit::trilby::dapr::app};

impl app::Host for Guest {
    fn id(&mut self) -> String {
        self.blocks().0.app.id.clone()
    }

    fn namespace(&mut self) -> String {
        self.blocks().0.app.namespace_or_default().to_owned()
    }

    fn get_metadata(&mut self) -> Vec<(String, String)> {
        self.blocks().0.metadata.extended().into_iter().collect()
    }

    fn set_metadata(&mut self, key: String, value: String) {
        self.blocks().0.metadata.set(key, value);
    }
}
