//! Enriches readings: each message of the topic `readings` is published again to `enriched`, with what the state store
//! knows about its sensor. Readings of one sensor stay in order; those of different sensors are handled side by side.

use exports::trilby::dapr::subscriber::{Event, Guest, Outcome, Subscription};
use trilby::dapr::{
    pubsub::{self, PublishOptions},
    state,
};

wit_bindgen::generate!({ world: "subscriber-app", path: "../../../wit", generate_all });

struct Enricher;

export!(Enricher);

impl Guest for Enricher {
    fn subscriptions() -> Vec<Subscription> {
        vec![Subscription {
            pubsub: "pubsub".into(),
            topic: "readings".into(),
            path: None,
            rules: Vec::new(),
            dead_letter_topic: None,
            order_by: Some("subject".into()),
            metadata: Vec::new(),
        }]
    }

    fn handle(event: Event) -> Outcome {
        let Some(sensor) = event.subject else { return Outcome::Drop };
        let about = match state::get("statestore", &sensor, None) {
            Ok(Some(item)) => item.value,
            Ok(None) => return Outcome::Drop,
            Err(_) => return Outcome::Retry,
        };
        // Both are JSON: {"reading": …, "sensor": …}.
        let parts: [&[u8]; 5] = [br#"{"reading":"#, &event.data, br#","sensor":"#, &about, b"}"];
        let options = PublishOptions {
            content_type: Some("application/json".into()),
            metadata: vec![("cloudevent.subject".into(), sensor)],
        };
        match pubsub::publish("pubsub", "enriched", &parts.concat(), Some(&options)) {
            Ok(()) => Outcome::Ack,
            Err(_) => Outcome::Retry,
        }
    }
}
