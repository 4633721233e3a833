//! What this app is called for: messages, a clock, configuration.

use crate::{
    Billing,
    exports::trilby::dapr::{
        bulk_subscriber,
        configuration_watcher::{self, Item, Watched},
        input_binding, subscriber,
    },
    invoices::{self, Verdict},
    totals,
    trilby::dapr::events::{Event, Outcome},
};

const PUBSUB: &str = "pubsub";
const PLACED: &str = "order-placed";
const UNBILLED: &str = "order-unbilled";
const BILLED: &str = "order-billed";

impl subscriber::Guest for Billing {
    fn subscriptions() -> Vec<subscriber::Subscription> {
        let subscription = |topic: &str, dead_letter_topic: Option<&str>| subscriber::Subscription {
            pubsub: PUBSUB.into(),
            topic: topic.into(),
            path: None,
            rules: Vec::new(),
            dead_letter_topic: dead_letter_topic.map(Into::into),
            order_by: None,
            metadata: Vec::new(),
        };
        vec![subscription(PLACED, Some(UNBILLED)), subscription(UNBILLED, None)]
    }

    fn handle(event: Event) -> Outcome {
        if event.topic == UNBILLED {
            return done(invoices::keep_unbilled(&event.data));
        }
        match invoices::bill(&event.data) {
            Ok(Verdict::Billed) => Outcome::Ack,
            Ok(Verdict::NotForUs) => Outcome::Drop,
            Ok(Verdict::NotNow) | Err(_) => Outcome::Retry,
        }
    }
}

impl bulk_subscriber::Guest for Billing {
    fn subscriptions() -> Vec<bulk_subscriber::Subscription> {
        vec![bulk_subscriber::Subscription {
            pubsub: PUBSUB.into(),
            topic: BILLED.into(),
            max_messages: Some(100),
            max_await_ms: Some(100),
            path: None,
            rules: Vec::new(),
            dead_letter_topic: None,
            metadata: Vec::new(),
        }]
    }

    /// However many invoices these are, it is one write.
    fn handle(events: Vec<Event>) -> Vec<Outcome> {
        let invoices: Vec<_> = events.iter().filter_map(|event| serde_json::from_slice(&event.data).ok()).collect();
        vec![done(totals::add(&invoices)); events.len()]
    }
}

impl input_binding::Guest for Billing {
    fn bindings() -> Vec<String> {
        vec!["nightly-report".into()]
    }

    fn handle(event: input_binding::Event) -> Result<input_binding::Reply, String> {
        let time = event.metadata.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("readTimeUTC"));
        totals::write_report(time.map(|(_, time)| time)).map_err(|error| error.message)?;
        Ok(input_binding::Reply {
            data: None,
            to: Vec::new(),
            parallel: false,
            state: Vec::new(),
            store: String::new(),
        })
    }
}

impl configuration_watcher::Guest for Billing {
    fn watch() -> Vec<Watched> {
        vec![Watched { store: invoices::CONFIGURATION.into(), keys: vec![invoices::DISCOUNT.into()] }]
    }

    /// Bills read the discount when they need it. Customers want to know since when it holds, which is now. One
    /// instance of several is told this, so it is written down for all of them.
    fn changed(_: String, items: Vec<Item>) -> Result<(), String> {
        items.iter().try_for_each(|item| invoices::note_discount(&item.value)).map_err(|error| error.message)
    }
}

fn done<E>(result: Result<(), E>) -> Outcome {
    if result.is_ok() { Outcome::Ack } else { Outcome::Retry }
}
