//! `pubsub.rabbitmq` and `bindings.rabbitmq` against a server. `TRILBY_TEST_RABBITMQ` says where it is, as
//! `amqp://user:password@host:port`, and `TRILBY_TEST_RABBITMQ_TLS` where it listens for TLS.
#![cfg(feature = "rabbitmq")]

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
    pubsub::{NotHandled, PubSub, PublishRequest, SubscribeRequest},
};

fn address() -> Option<String> {
    support::server("pubsub.rabbitmq", "TRILBY_TEST_RABBITMQ")
}

/// Opens a broker with a consumer id of its own.
async fn broker(properties: &[(&str, &str)]) -> Option<Arc<dyn PubSub>> {
    let (address, id) = (address()?, unique());
    let own = [("connectionString", &*address), ("consumerID", &*id), ("publisherConfirm", "true")];
    Some(open_pubsub("pubsub.rabbitmq", &[&own[..], properties].concat()).await.expect("the server is up"))
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn what_is_published_arrives_at_each_consumer_id_once() {
    let (Some(one), Some(other)) = (broker(&[]).await, broker(&[]).await) else { return };
    let topic = unique();
    let (first, second, third) = (Inbox::new(), Inbox::new(), Inbox::new());
    let open = [
        Open::subscribe(&*one, &topic, &first).await,
        Open::subscribe(&*one, &topic, &second).await,
        Open::subscribe(&*other, &topic, &third).await,
    ];
    for number in 0..20 {
        publish(&*one, &topic, &number.to_string()).await;
    }
    third.wait_for_handled(20).await;
    let shared = || (first.texts().len() + second.texts().len() == 20).then_some(());
    support::eventually("the two share the messages", shared).await;
    assert_eq!(third.messages()[0].topic, topic);
    for subscription in open {
        subscription.stop().await;
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn single_keeps_the_order_and_parallel_does_not_wait() {
    let Some(single) = broker(&[("concurrency", "single")]).await else { return };
    let Some(parallel) = broker(&[("prefetchCount", "4")]).await else { return };
    for (broker, most) in [(single, 1), (parallel, 4)] {
        let topic = unique();
        let inbox = Inbox::answering(Duration::from_millis(20), |_, _| Ok(()));
        let open = Open::subscribe(&*broker, &topic, &inbox).await;
        for number in 0..20 {
            publish(&*broker, &topic, &number.to_string()).await;
        }
        inbox.wait_for_handled(20).await;
        assert_eq!(inbox.most_busy(), most);
        let sent: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(inbox.texts(), sent, "they begin in order either way");
        open.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_handled_is_dropped_requeued_or_dead_lettered() {
    let Some(dropping) = broker(&[]).await else { return };
    let Some(requeueing) = broker(&[("requeueInFailure", "true")]).await else { return };
    let topic = unique();
    let never =
        || Inbox::answering(Duration::ZERO, |_, before| if before < 3 { Err(NotHandled("no".into())) } else { Ok(()) });
    let (dropped, requeued) = (never(), never());
    let open =
        [Open::subscribe(&*dropping, &topic, &dropped).await, Open::subscribe(&*requeueing, &topic, &requeued).await];
    publish(&*dropping, &topic, "poison").await;
    assert_eq!(requeued.wait_for_handled(1).await["poison"], 1);
    assert_eq!((dropped.texts().len(), requeued.texts().len()), (1, 4));
    for subscription in open {
        subscription.stop().await;
    }

    let (topic, id) = (unique(), unique());
    let Some(burying) = broker(&[("enableDeadLetter", "true"), ("consumerID", &id)]).await else { return };
    let buried = Inbox::answering(Duration::ZERO, |_, _| Err(NotHandled("no".into())));
    let open = Open::subscribe(&*burying, &topic, &buried).await;
    let dead = Inbox::new();
    let queue = format!("{id}-{topic}");
    // The dead letters' queue is read through a binding, since it is not an exchange of ours.
    let address = address().expect("it was there before");
    let properties = [
        ("host", &*address),
        ("queueName", &format!("dlq-{queue}")),
        ("durable", "true"),
        ("deleteWhenUnused", "true"),
    ];
    let error = open_binding("bindings.rabbitmq", &properties).await.err().expect("it was declared as lazy");
    assert!(error.to_string().contains("x-queue-mode"), "{error}");
    let reader =
        SubscribeRequest { topic: format!("dlx-{queue}"), metadata: metadata(&[("queueName", &unique())]), bulk: None };
    // The exchange of dead letters is always durable, a fanout, and goes when it is not used.
    let letters = Open::with(&*burying, &reader, &dead).await;
    publish(&*burying, &topic, "poison").await;
    assert_eq!(dead.wait_for(1).await, ["poison"]);
    letters.stop().await;
    open.stop().await;
}

#[tokio::test]
async fn routing_keys_priorities_lives_and_properties_are_rabbitmqs() {
    let Some(broker) = broker(&[
        ("exchangeKind", "direct"),
        ("publishMessagePropertiesToMetadata", "true"),
        ("concurrency", "single"),
    ])
    .await
    else {
        return;
    };
    let topic = unique();
    let inbox = Inbox::new();
    let keys =
        metadata(&[("routingKey", "red,blue"), ("maxPriority", "9"), ("queueType", "classic"), ("maxLen", "100")]);
    let request = SubscribeRequest { topic: topic.clone(), metadata: keys, bulk: None };
    let send = async |data: &str, pairs: &[(&str, &str)]| {
        let request = PublishRequest { metadata: metadata(pairs), ..message(&topic, data) };
        broker.publish(&request).await.expect("publish");
    };
    // The first time declares the queue; what is sent while nobody reads waits in it, the important first.
    let quorum = SubscribeRequest { metadata: metadata(&[("queueType", "ring")]), ..request.clone() };
    let error = broker.subscribe(&quorum, Inbox::new(), Default::default()).await.err().expect("no such type");
    assert_eq!(error.to_string(), "invalid queue type ring. Valid types are classic and quorum");

    let open = Open::with(&*broker, &request, &inbox).await;
    send(
        "1",
        &[("routingKey", "red"), ("messageID", "m1"), ("correlationId", "c1"), ("type", "t"), ("contentType", "a/b")],
    )
    .await;
    send("lost", &[("routingKey", "green")]).await;
    send("2", &[("routingKey", "blue"), ("priority", "5"), ("ttlInSeconds", "60")]).await;
    assert_eq!(inbox.wait_for(2).await, ["1", "2"]);
    let names = [("messageid", "m1"), ("correlationid", "c1"), ("type", "t"), ("contenttype", "a/b")];
    let names = names.map(|(name, value)| (format!("metadata.{name}"), value.to_owned()));
    assert_eq!(inbox.messages()[0].metadata, Metadata::from(names));
    assert_eq!(inbox.messages()[1].metadata, metadata(&[("metadata.contenttype", "text/plain")]));
    open.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn a_message_outlives_neither_its_own_life_nor_the_components() {
    let Some(broker) = broker(&[("ttlInSeconds", "1"), ("deletedWhenUnused", "false"), ("maxLen", "50")]).await else {
        return;
    };
    let topic = unique();
    let inbox = Inbox::new();
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    open.stop().await;
    publish(&*broker, &topic, "short").await;
    let long = PublishRequest { metadata: metadata(&[("ttlInSeconds", "60")]), ..message(&topic, "long") };
    broker.publish(&long).await.expect("publish");
    sleep(Duration::from_millis(1500)).await;
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    assert_eq!(inbox.wait_for(1).await, ["long"]);
    open.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_stopped_settles_what_it_has_and_leaves_the_rest() {
    let Some(broker) = broker(&[("deletedWhenUnused", "false"), ("prefetchCount", "2"), ("maxLen", "50")]).await else {
        return;
    };
    let topic = unique();
    let slow = Inbox::answering(Duration::from_millis(300), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, &topic, &slow).await;
    for number in 0..5 {
        publish(&*broker, &topic, &number.to_string()).await;
    }
    slow.wait_for(2).await;
    open.stop().await;
    let begun = slow.texts();
    assert_eq!((slow.busy(), slow.handled().len()), (0, begun.len()));
    assert!(begun.len() < 5, "all were handled while the broker took them");

    let rest = Inbox::new();
    let open = Open::subscribe(&*broker, &topic, &rest).await;
    let rest = rest.wait_for_handled(5 - begun.len()).await.into_keys().collect();
    assert_eq!([begun, rest].concat(), ["0", "1", "2", "3", "4"]);
    open.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn auto_ack_forgets_what_was_not_handled() {
    let Some(broker) = broker(&[("autoAck", "true"), ("requeueInFailure", "true")]).await else { return };
    let topic = unique();
    let inbox = Inbox::answering(Duration::ZERO, |_, _| Err(NotHandled("no".into())));
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    publish(&*broker, &topic, "1").await;
    publish(&*broker, &topic, "2").await;
    inbox.wait_for(2).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(inbox.texts().len(), 2);
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back_and_loses_nothing() {
    let Some(address) = address() else { return };
    let (login, server) = address.trim_start_matches("amqp://").rsplit_once('@').expect("a login");
    let mut proxy = Proxy::start(server).await;
    let through = format!("amqp://{login}@{}", proxy.address());
    let properties = [
        ("connectionString", &*through),
        ("reconnectWaitSeconds", "100ms"),
        ("publisherConfirm", "true"),
        ("deletedWhenUnused", "false"),
        ("requeueInFailure", "true"),
        ("maxLen", "10000"),
    ];
    let id = unique();
    let broker =
        open_pubsub("pubsub.rabbitmq", &[&properties[..], &[("consumerID", &*id)]].concat()).await.expect("open");
    let topic = unique();
    let inbox = Inbox::answering(Duration::from_millis(1), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    let flood = Flood::start(&broker, &message(&topic, ""), 2000);
    for count in [300, 900, 1500] {
        flood.reach(count).await;
        proxy.cut().await;
    }
    eprintln!("{} of 2000 came more than once", flood.arrive(&[&inbox]).await);
    broker.ping().await.expect("ping");
    proxy.stop().await;
    assert_eq!(broker.ping().await.expect_err("it is gone").kind(), ErrorKind::Unavailable);
    timeout(Duration::from_secs(5), open.stop()).await.expect("it stops without a server too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load_loses_nothing_that_it_acknowledged() {
    let Some(mut server) = Server::start("rabbitmq").await else { return };
    let address = format!("amqp://trilby:trilby@127.0.0.1:{}", server.port);
    let properties = [
        ("connectionString", &*address),
        ("consumerID", "app"),
        ("reconnectWaitSeconds", "200ms"),
        ("publisherConfirm", "true"),
        ("deliveryMode", "2"),
        ("deletedWhenUnused", "false"),
        ("requeueInFailure", "true"),
    ];
    // It listens before the account is there.
    let start = std::time::Instant::now();
    let broker = loop {
        match open_pubsub("pubsub.rabbitmq", &properties).await {
            Ok(broker) => break broker,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    let inbox = Inbox::answering(Duration::from_millis(1), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, "orders", &inbox).await;
    let flood = Flood::start(&broker, &message("orders", ""), 3000);
    for count in [500, 1500] {
        flood.reach(count).await;
        server.kill();
        server.start_again().await;
    }
    eprintln!("{} of 3000 came more than once", flood.arrive(&[&inbox]).await);
    open.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to_and_a_wrong_password_is_refused() {
    let Some(address) = address() else { return };
    let Some(secure) = support::server("pubsub.rabbitmq with TLS", "TRILBY_TEST_RABBITMQ_TLS") else { return };
    let id = unique();
    let own = [("connectionString", &*secure), ("consumerID", &*id), ("caCert", AUTHORITY)];
    let broker = open_pubsub("pubsub.rabbitmq", &own).await.expect("open");
    let inbox = Inbox::new();
    let open = Open::subscribe(&*broker, &id, &inbox).await;
    publish(&*broker, &id, "hidden").await;
    inbox.wait_for(1).await;
    open.stop().await;

    let error = open_pubsub("pubsub.rabbitmq", &own[..2]).await.err().expect("nobody vouches for it");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    let wrong = address.replacen(":trilby@", ":wrong@", 1);
    let error = open_pubsub("pubsub.rabbitmq", &[("connectionString", &wrong)]).await.err().expect("a wrong password");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let error = open_pubsub("pubsub.rabbitmq", &[("connectionString", "amqp://127.0.0.1:1")]).await.err();
    assert_eq!(error.expect("nobody listens").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_topic_that_was_declared_otherwise_is_refused_and_the_next_one_is_not() {
    let (Some(fanout), Some(direct)) = (broker(&[]).await, broker(&[("exchangeKind", "direct")]).await) else { return };
    let topic = unique();
    publish(&*fanout, &topic, "1").await;
    let error = direct.publish(&message(&topic, "2")).await.expect_err("it is a fanout");
    assert!(error.to_string().contains("inequivalent arg 'type'"), "{error}");
    publish(&*direct, &unique(), "3").await;
    let long = direct.publish(&message(&"t".repeat(256), "4")).await.expect_err("too long");
    assert_eq!(long.kind(), ErrorKind::InvalidRequest);
    let error =
        direct.subscribe(&SubscribeRequest { topic, ..Default::default() }, Inbox::new(), Default::default()).await;
    assert!(error.err().expect("it is a fanout").to_string().contains("inequivalent arg 'type'"));
}

#[tokio::test]
async fn a_binding_sends_and_receives_with_headers_and_offers_again_what_was_not_handled() {
    let Some(address) = address() else { return };
    let queue = unique();
    let own = [("host", &*address), ("queueName", &*queue), ("durable", "true"), ("deleteWhenUnused", "true")];
    let binding = open_binding("bindings.rabbitmq", &own).await.expect("open");
    let pairs = [("trace-id", "abc"), ("a b", "c"), ("ttlInSeconds", "60"), ("priority", "1")];
    create(&binding, "\"hello\"", &pairs).await.expect("create");
    let events = Events::answering(|_, before| before > 0);
    let (stop, task) = read(&binding, &events).await;
    let came = events.wait_for(2).await;
    assert_eq!((&came[0].data[..], &came[1].data[..]), (&b"\"hello\""[..], &b"\"hello\""[..]));
    let expected = [("trace-id", "abc"), ("a+b", "c"), ("ttlInSeconds", "60"), ("priority", "1")];
    assert_eq!(came[0].metadata, metadata(&expected));
    stop.cancel();
    task.await.expect("no panic").expect("no error");

    let error = create(&binding, "x", &[("ttlInSeconds", "soon")]).await.expect_err("not a time").error;
    assert_eq!(error.to_string(), "failed to get TTL: ttl value must be a valid integer: actual is 'soon'");
    binding.output.as_ref().expect("it has one").close().await;

    for (left_out, message) in [("host", "missing host address"), ("queueName", "missing queue Name")] {
        let some: Vec<_> = own.into_iter().filter(|(name, _)| *name != left_out).collect();
        let error = open_binding("bindings.rabbitmq", &some).await.err().expect("it is required");
        assert_eq!(error.to_string(), message);
    }
}
