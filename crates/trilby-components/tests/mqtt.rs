//! `pubsub.mqtt3` and `bindings.mqtt3` against a server. `TRILBY_TEST_MQTT` says where it is, as
//! `mqtt://user:password@host:port`, and `TRILBY_TEST_MQTT_TLS` where it listens for TLS.
#![cfg(feature = "mqtt")]

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    broker::{AUTHORITY, Events, Flood, Server, create, open_binding, open_pubsub, publish, read},
    inbox::{Inbox, Open, message},
    proxy::Proxy,
    unique,
};
use tokio::time::{sleep, timeout};
use trilby_component::{
    ErrorKind, Metadata,
    pubsub::{Feature, NotHandled, PubSub, PublishRequest, SubscribeRequest},
};

fn address() -> Option<String> {
    support::server("pubsub.mqtt3", "TRILBY_TEST_MQTT")
}

/// Opens a broker with a consumer id of its own.
async fn broker(properties: &[(&str, &str)]) -> Option<Arc<dyn PubSub>> {
    let (address, id) = (address()?, unique());
    let own = [("url", &*address), ("consumerID", &*id)];
    Some(open_pubsub("pubsub.mqtt3", &[&own[..], properties].concat()).await.expect("the server is up"))
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn what_is_published_arrives_at_each_consumer_id_with_every_quality() {
    for qos in ["0", "1", "2"] {
        let Some(publisher) = broker(&[("qos", qos)]).await else { return };
        let Some(other) = broker(&[("qos", qos)]).await else { return };
        assert_eq!(publisher.features(), [Feature::SubscribeWildcards]);
        let topic = unique();
        let (here, there) = (Inbox::new(), Inbox::new());
        let open = [Open::subscribe(&*publisher, &topic, &here).await, Open::subscribe(&*other, &topic, &there).await];
        for number in 0..50 {
            publish(&*publisher, &topic, &number.to_string()).await;
        }
        for inbox in [&here, &there] {
            assert!(inbox.wait_for_handled(50).await.values().all(|count| *count == 1), "qos {qos}");
        }
        assert_eq!(here.messages()[0].topic, topic);
        assert_eq!(here.messages()[0].metadata, metadata(&[("retained", "false")]));
        for subscription in open {
            subscription.stop().await;
        }
        publisher.close().await;
        assert_eq!(publisher.ping().await.expect_err("closed").kind(), ErrorKind::Unavailable);
        other.close().await;
    }
}

#[tokio::test]
async fn a_wildcard_means_many_topics_and_a_plain_topic_goes_first() {
    let Some(broker) = broker(&[]).await else { return };
    let root = unique();
    let (all, one) = (Inbox::new(), Inbox::new());
    let open = [
        Open::subscribe(&*broker, &format!("{root}/#"), &all).await,
        Open::subscribe(&*broker, &format!("{root}/a"), &one).await,
    ];
    publish(&*broker, &format!("{root}/b/c"), "deep").await;
    publish(&*broker, &root, "root").await;
    publish(&*broker, &format!("{root}/a"), "plain").await;
    all.wait_for_handled(2).await;
    one.wait_for_handled(1).await;
    let mut topics: Vec<_> = all.messages().into_iter().map(|message| message.topic).collect();
    topics.sort();
    assert_eq!(topics, [root.clone(), format!("{root}/b/c")]);
    for subscription in open {
        subscription.stop().await;
    }
    let shared = Inbox::new();
    let open = Open::subscribe(&*broker, &format!("$share/group/{root}/s"), &shared).await;
    publish(&*broker, &format!("{root}/s"), "shared").await;
    shared.wait_for_handled(1).await;
    open.stop().await;
}

#[tokio::test]
async fn what_is_retained_says_so_to_whoever_comes_later() {
    let Some(broker) = broker(&[("retain", "true")]).await else { return };
    let (kept, passing) = (unique(), unique());
    publish(&*broker, &kept, "kept").await;
    let request = PublishRequest { metadata: metadata(&[("retain", "false")]), ..message(&passing, "passing") };
    broker.publish(&request).await.expect("publish");
    let inbox = Inbox::new();
    let open = [Open::subscribe(&*broker, &passing, &inbox).await, Open::subscribe(&*broker, &kept, &inbox).await];
    assert_eq!(inbox.wait_for(1).await, ["kept"]);
    assert_eq!(inbox.messages()[0].metadata, metadata(&[("retained", "true")]));
    for subscription in open {
        subscription.stop().await;
    }
    let wrong = PublishRequest { metadata: metadata(&[("retain", "maybe")]), ..message(&passing, "x") };
    let error = broker.publish(&wrong).await.expect_err("neither true nor false");
    assert!(error.to_string().starts_with("mqtt invalid retain maybe"), "{error}");
}

#[tokio::test]
async fn the_server_keeps_what_comes_while_nobody_is_there() {
    let (Some(address), id, topic) = (address(), unique(), unique()) else { return };
    let own = [("url", &*address), ("consumerID", &*id)];
    let inbox = Inbox::new();
    let away = open_pubsub("pubsub.mqtt3", &own).await.expect("open");
    Open::subscribe(&*away, &topic, &inbox).await.stop().await;
    away.close().await;
    let Some(publisher) = broker(&[]).await else { return };
    for number in 0..30 {
        publish(&*publisher, &topic, &number.to_string()).await;
    }
    // They come as soon as the session is there again, before anybody has subscribed.
    let back = open_pubsub("pubsub.mqtt3", &own).await.expect("open");
    sleep(Duration::from_millis(300)).await;
    let open = Open::subscribe(&*back, &topic, &inbox).await;
    assert!(inbox.wait_for_handled(30).await.values().all(|count| *count == 1));
    open.stop().await;

    // A subscription that ended leaves what comes to the next one, over the same connection.
    publish(&*publisher, &topic, "between").await;
    sleep(Duration::from_millis(200)).await;
    let open = Open::subscribe(&*back, &topic, &inbox).await;
    inbox.wait_for_handled(31).await;
    open.stop().await;
}

#[tokio::test]
async fn what_is_not_handled_is_offered_again() {
    let Some(broker) = broker(&[]).await else { return };
    let topic = unique();
    let inbox =
        Inbox::answering(Duration::ZERO, |_, before| if before < 2 { Err(NotHandled("no".into())) } else { Ok(()) });
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    publish(&*broker, &topic, "stubborn").await;
    assert_eq!(inbox.wait_for_handled(1).await["stubborn"], 1);
    assert_eq!(inbox.texts().len(), 3);
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_app_slows_the_server_down_and_not_the_connection() {
    let (Some(reader), Some(publisher)) = (broker(&[]).await, broker(&[]).await) else { return };
    let topic = unique();
    let slow = Inbox::answering(Duration::from_millis(100), |_, _| Ok(()));
    let open = Open::subscribe(&*reader, &topic, &slow).await;
    let flood = Flood::start(&publisher, &message(&topic, ""), 1000);
    slow.wait_for(100).await;
    assert!(slow.most_busy() <= 100);
    publish(&*reader, &unique(), "the way out is open").await;
    assert_eq!(flood.arrive(&[&slow]).await, 0);
    open.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_stopped_settles_what_it_has() {
    let Some(broker) = broker(&[]).await else { return };
    let topic = unique();
    let slow = Inbox::answering(Duration::from_millis(300), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, &topic, &slow).await;
    for number in 0..5 {
        publish(&*broker, &topic, &number.to_string()).await;
    }
    slow.wait_for(5).await;
    open.stop().await;
    assert_eq!((slow.busy(), slow.handled().len()), (0, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back_and_loses_nothing() {
    let Some(address) = address() else { return };
    let (login, server) = address.trim_start_matches("mqtt://").rsplit_once('@').expect("a login");
    let mut proxy = Proxy::start(server).await;
    let through = format!("mqtt://{login}@{}", proxy.address());
    for qos in ["1", "2"] {
        let (id, topic) = (unique(), unique());
        let own = [("url", &*through), ("consumerID", &*id), ("qos", qos)];
        let broker = open_pubsub("pubsub.mqtt3", &own).await.expect("open");
        let inbox = Inbox::answering(Duration::from_millis(1), |_, _| Ok(()));
        let open = Open::subscribe(&*broker, &topic, &inbox).await;
        let flood = Flood::start(&broker, &message(&topic, ""), 2000);
        for count in [300, 900, 1500] {
            flood.reach(count).await;
            proxy.cut().await;
        }
        eprintln!("{} of 2000 came more than once with qos {qos}", flood.arrive(&[&inbox]).await);
        broker.ping().await.expect("ping");
        open.stop().await;
        broker.close().await;
    }
    let id = unique();
    let broker = open_pubsub("pubsub.mqtt3", &[("url", &*through), ("consumerID", &id)]).await.expect("open");
    let open = Open::subscribe(&*broker, &id, &Inbox::new()).await;
    proxy.stop().await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.ping().await.expect_err("it is gone").kind(), ErrorKind::Unavailable);
    timeout(Duration::from_secs(5), open.stop()).await.expect("it stops without a server too");
    timeout(Duration::from_secs(5), broker.close()).await.expect("and so does the broker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_loses_nothing_that_it_acknowledged() {
    let Some(mut server) = Server::start("mosquitto").await else { return };
    let address = format!("mqtt://trilby:trilby@127.0.0.1:{}", server.port);
    let broker = open_pubsub("pubsub.mqtt3", &[("url", &*address), ("consumerID", "app")]).await.expect("open");
    let inbox = Inbox::answering(Duration::from_millis(1), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, "orders", &inbox).await;
    let flood = Flood::start(&broker, &message("orders", ""), 3000);
    for count in [300, 1000, 2000] {
        flood.reach(count).await;
        // Not killed: it writes its sessions to disk when it ends.
        server.stop();
        server.start_again().await;
    }
    eprintln!("{} of 3000 came more than once", flood.arrive(&[&inbox]).await);
    open.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to_and_a_wrong_password_is_refused() {
    let Some(address) = address() else { return };
    let Some(secure) = support::server("pubsub.mqtt3 with TLS", "TRILBY_TEST_MQTT_TLS") else { return };
    let id = unique();
    let own = [("url", &*secure), ("consumerID", &*id), ("caCert", AUTHORITY)];
    let broker = open_pubsub("pubsub.mqtt3", &own).await.expect("open");
    let inbox = Inbox::new();
    let open = Open::subscribe(&*broker, &id, &inbox).await;
    let long = "x".repeat(300_000);
    publish(&*broker, &id, &long).await;
    assert_eq!(inbox.wait_for(1).await, [long]);
    open.stop().await;
    broker.close().await;

    let error = open_pubsub("pubsub.mqtt3", &own[..2]).await.err().expect("nobody vouches for it");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let wrong = address.replacen(":trilby@", ":wrong@", 1);
    let error = open_pubsub("pubsub.mqtt3", &[("url", &wrong), ("consumerID", "x")]).await.err().expect("not allowed");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = open_pubsub("pubsub.mqtt3", &[("url", "mqtt://127.0.0.1:1"), ("consumerID", "x")]).await.err();
    assert_eq!(error.expect("nobody listens").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn settings_and_topics_that_cannot_be_meant_are_refused() {
    for (properties, message) in [
        (vec![("consumerID", "x")], "missing url"),
        (vec![("url", "mqtt://h")], "missing consumerID"),
        (
            vec![("url", "mqtt://h"), ("consumerID", "x"), ("qos", "3")],
            "metadata qos: invalid qos 3, expected 0, 1 or 2",
        ),
    ] {
        let error = open_pubsub("pubsub.mqtt3", &properties).await.err().expect("invalid");
        assert_eq!(error.to_string(), message);
    }
    let Some(broker) = broker(&[]).await else { return };
    for topic in ["", "a/#", "a/+/b"] {
        let error = broker.publish(&message(topic, "x")).await.expect_err("not a topic");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    let request = SubscribeRequest::default();
    let error = broker.subscribe(&request, Inbox::new(), Default::default()).await.err().expect("no topic");
    assert_eq!(error.to_string(), "topic name is empty");
}

#[tokio::test]
async fn a_binding_sends_and_receives_and_offers_again_what_was_not_handled() {
    let Some(address) = address() else { return };
    let (id, topic) = (unique(), unique());
    let filter = format!("{topic}/+");
    let own = [("url", &*address), ("consumerID", &*id), ("topic", &*filter), ("backOffMaxRetries", "1")];
    let binding = open_binding("bindings.mqtt3", &own).await.expect("open");
    let events = Events::answering(|_, before| before > 0);
    let (stop, task) = read(&binding, &events).await;
    create(&binding, "\"hello\"", &[("topic", &format!("{topic}/a"))]).await.expect("create");
    let came = events.wait_for(2).await;
    assert_eq!((&came[0].data[..], &came[1].data[..]), (&b"\"hello\""[..], &b"\"hello\""[..]));
    assert_eq!(came[0].metadata, metadata(&[("topic", &format!("{topic}/a"))]));
    let error = create(&binding, "x", &[]).await.expect_err("its own topic is a pattern").error;
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);

    stop.cancel();
    task.await.expect("no panic").expect("no error");
    create(&binding, "later", &[("topic", &format!("{topic}/b"))]).await.expect("create");
    let (stop, task) = read(&binding, &events).await;
    assert_eq!(&events.wait_for(3).await[2].data[..], b"later");
    stop.cancel();
    task.await.expect("no panic").expect("no error");
    binding.output.as_ref().expect("it has one").close().await;

    for (left_out, message) in
        [("url", "missing url"), ("topic", "missing topic"), ("consumerID", "missing consumerID")]
    {
        let some: Vec<_> = own.into_iter().filter(|(name, _)| *name != left_out).collect();
        let error = open_binding("bindings.mqtt3", &some).await.err().expect("it is required");
        assert_eq!(error.to_string(), message);
    }
}
