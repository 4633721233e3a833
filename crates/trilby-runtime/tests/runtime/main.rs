//! From YAML to blocks: what an app gets, what apps share, and what an error says.

mod fakes;

use std::sync::Arc;

use trilby_component::state::GetRequest;
use trilby_core::{Api, Body, Code, Ctx, Identity, Request, Response, app, metadata::AppConnection, pubsub::Publish};
use trilby_runtime::{Configuration, Env, Options, Resources, Runtime, StartError, configuration::Layers};

use fakes::{Counts, catalog};

const VAULT: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.vault, version: v1}
";

/// A component of `type_name`; `rest` continues its spec and may go on to `auth` and `scopes`.
fn component(name: &str, type_name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {type_name}\n  \
         version: v1\n{rest}\n"
    )
}

fn endpoint(name: &str, spec: &str) -> String {
    format!("---\napiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

struct Fixture {
    runtime: Runtime,
    counts: Arc<Counts>,
}

fn fixture(yaml: &str) -> Fixture {
    let counts = Arc::new(Counts::default());
    let mut resources = Resources::strict();
    resources.read_text("r.yaml", yaml).expect("good YAML");
    let env = [("HOST", "db.local"), ("POD_NAME", "pod-1"), ("DAPR_API_TOKEN", "t")].into_iter().collect::<Env>();
    let options = Options { catalog: catalog(&counts), resources, env, version: "1.2.3".into(), ..Options::default() };
    Fixture { runtime: Runtime::new(options), counts }
}

impl Fixture {
    async fn app(&mut self, id: &str) -> Result<Api, StartError> {
        self.app_with(Identity::new(id), &Configuration::default()).await
    }

    async fn app_with(&mut self, app: Identity, configuration: &Configuration) -> Result<Api, StartError> {
        self.runtime.api_for(app, configuration, AppConnection::default()).await
    }
}

async fn error(yaml: &str) -> String {
    fixture(yaml).app("a").await.err().expect("bad input").to_string()
}

/// A property that a `state.mirror` was opened with.
async fn property(api: &Api, store: &str, name: &str) -> String {
    let request = GetRequest { key: name.into(), ..GetRequest::default() };
    let item = api.state.store(store).expect("loaded").get(&Ctx::default(), request).await.expect("readable");
    String::from_utf8(item.expect("a property").value.to_vec()).expect("text")
}

fn names(api: &Api) -> Vec<&str> {
    api.metadata.facts().components.iter().map(|component| component.name.as_str()).collect()
}

#[tokio::test]
async fn values_come_from_text_environment_secrets_and_templates() {
    let yaml = component(
        "s",
        "state.mirror",
        "  metadata:
  - {name: host, envRef: HOST}
  - {name: token, envRef: DAPR_API_TOKEN}
  - {name: password, secretKeyRef: {name: db, key: password}}
  - {name: fallback, value: used, secretKeyRef: {name: nowhere}}
  - {name: template, value: '{appID}/{namespace}/{podName}'}
  - {name: port, value: 6379}
auth: {secretStore: vault}",
    ) + "---"
        + VAULT;
    let mut fixture = fixture(&yaml);
    let app = Identity { id: "a".into(), namespace: Some("prod".into()) };
    let api = fixture.app_with(app, &Configuration::default()).await.expect("starts");
    for (name, expect) in [
        ("host", "db.local"),
        ("password", "hunter2"),
        ("fallback", "used"),
        ("template", "a/prod.a/pod-1"),
        ("port", "6379"),
    ] {
        assert_eq!(property(&api, "s", name).await, expect, "{name}");
    }
    let token = GetRequest { key: "token".into(), ..GetRequest::default() };
    let token = api.state.store("s").expect("loaded").get(&Ctx::default(), token).await.expect("readable");
    assert!(token.is_none(), "a token must not reach a component");
    assert_eq!(names(&api), ["vault", "s"], "secret stores are loaded first");
}

#[tokio::test]
async fn a_secret_store_may_need_another() {
    let yaml = component(
        "guarded",
        "secretstores.vault",
        "  metadata:\n  - {name: token, secretKeyRef: {name: db, key: password}}\nauth: {secretStore: vault}",
    ) + "---"
        + VAULT;
    let api = fixture(&yaml).app("a").await.expect("starts");
    assert_eq!(names(&api), ["guarded", "vault"]);
}

#[tokio::test]
async fn apps_share_what_would_be_the_same_and_nothing_else() {
    let yaml = component("shared", "state.mirror", "")
        + &component("own", "state.mirror", "  metadata: [{name: owner, value: '{appID}'}]")
        + &component("scoped", "state.mirror", "scopes: [b]");
    let mut fixture = fixture(&yaml);
    let a = fixture.app("a").await.expect("starts");
    let b = fixture.app("b").await.expect("starts");
    assert_eq!(fixture.counts.get().0, 4, "shared once, own twice, scoped once");
    assert_eq!(property(&a, "own", "owner").await, "a");
    assert_eq!(property(&b, "own", "owner").await, "b");
    assert_eq!(names(&a), ["shared", "own"]);
    assert_eq!(names(&b), ["shared", "own", "scoped"]);
    let error = a.state.store("scoped").err().expect("not in scope");
    assert_eq!(error.code(), Code::StateStoreNotFound);

    fixture.runtime.close().await;
    assert_eq!(fixture.counts.get(), (4, 4));
}

#[tokio::test]
async fn two_of_one_name_are_an_error_for_the_app_that_sees_both() {
    let yaml = component("s", "state.mirror", "scopes: [a]") + &component("s", "state.mirror", "scopes: [b, c]");
    let mut apart = fixture(&yaml);
    apart.app("a").await.expect("sees the first");
    apart.app("b").await.expect("sees the second");

    let yaml = component("s", "state.mirror", "") + &component("s", "state.down", "scopes: [a]");
    assert_eq!(
        error(&yaml).await,
        "duplicate Component s for app a: r.yaml: document 1, line 2 and r.yaml: document 2, line 10; rename one, or scope \
         them to different apps"
    );
    let yaml = endpoint("e", "{baseUrl: 'http://x'}") + &endpoint("e", "{baseUrl: 'http://y'}");
    assert!(error(&yaml).await.starts_with("duplicate HTTPEndpoint e for app a: "));
}

#[tokio::test]
async fn two_apps_of_one_id_are_an_error() {
    let mut fixture = fixture("");
    fixture.app("a").await.expect("the first");
    let error = fixture.app("a").await.err().expect("taken").to_string();
    assert_eq!(error, "two apps have the id a; every app of a runtime needs an id of its own");
}

#[tokio::test]
async fn an_error_names_file_component_field_and_fix() {
    const S: &str = "r.yaml: document 1, line 2: component s ";
    let secret = |reference: &str, auth: &str| {
        component(
            "s",
            "state.mirror",
            &format!("  metadata:\n  - {{name: password, secretKeyRef: {reference}}}\n{auth}"),
        ) + "---"
            + VAULT
    };
    let with_vault = |reference: &str| secret(reference, "auth: {secretStore: vault}");
    let key = |pairs: &str| {
        component("s", "state.mirror", &format!("  metadata: [{pairs}]\nauth: {{secretStore: vault}}")) + "---" + VAULT
    };
    for (yaml, expect) in [
        (
            component("s", "state.msql", ""),
            "(state.msql/v1): unknown type state.msql/v1; this build has state.down/v1, state.mirror/v1, state.slow/v1",
        ),
        (
            component("s", "secretstores.x", ""),
            "(secretstores.x/v1): unknown type secretstores.x/v1; this build has secretstores.vault/v1",
        ),
        (
            component("s", "pubsub.redis", ""),
            "(pubsub.redis/v1): unknown type pubsub.redis/v1; this build has pubsub.broadcast/v1, pubsub.post/v1",
        ),
        (
            component("s", "queue.redis", ""),
            "(queue.redis/v1): unknown type queue.redis; this build has pubsub.broadcast/v1, pubsub.post/v1, ",
        ),
        (
            component("s", "state.mirror", "").replace("v1\n", "v7\n"),
            "(state.mirror/v7): unknown type state.mirror/v7; this build has",
        ),
        (component("s", "state.down", ""), "(state.down/v1): cannot connect to 10.0.0.1:6379"),
        (
            component("s", "state.slow", "  initTimeout: 1ms"),
            "(state.slow/v1): did not open within 1ms; is its server up? spec.initTimeout gives it longer",
        ),
        (
            with_vault("{name: nowhere}"),
            "(state.mirror/v1): metadata password: secret \"nowhere\" of vault: secret nowhere not found",
        ),
        (
            with_vault("{name: db, key: pasword}"),
            "(state.mirror/v1): metadata password: secret \"db\" of vault has no key \"pasword\"; it has empty, key, password",
        ),
        (
            with_vault("{name: db, key: empty}"),
            "(state.mirror/v1): metadata password: key \"empty\" of secret \"db\" of vault is empty",
        ),
        (
            secret("{name: db}", ""),
            "(state.mirror/v1): metadata password: secretKeyRef \"db\" without auth.secretStore; name the component that holds \
             the secret",
        ),
        (
            secret("{name: db}", "auth: {secretStore: valut}"),
            "(state.mirror/v1): metadata password: auth.secretStore \"valut\" is not a secret store that this app has; its \
             components may be scoped or missing",
        ),
        (key("{name: keyPrefix, value: 'a||b'}"), "(state.mirror/v1): input key/keyPrefix 'a||b' can't contain '||'"),
        (
            key("{name: primaryEncryptionKey, value: 00ff}"),
            "(state.mirror/v1): metadata primaryEncryptionKey: an encryption key must come from a secretKeyRef",
        ),
        (
            key("{name: primaryEncryptionKey, secretKeyRef: {name: db, key: password}}"),
            "(state.mirror/v1): metadata primaryEncryptionKey: encryption key db is not hexadecimal: ",
        ),
        (
            key("{name: secondaryEncryptionKey, secretKeyRef: {name: db, key: key}}"),
            "(state.mirror/v1): metadata secondaryEncryptionKey: needs a primaryEncryptionKey beside it",
        ),
    ] {
        let error = error(&yaml).await;
        let expect = format!("{S}{expect}");
        assert!(error.starts_with(&expect), "{error}\n{expect}");
    }
}

#[tokio::test]
async fn a_component_that_ignores_errors_is_left_out() {
    let yaml = component("s", "state.down", "  ignoreErrors: true")
        + &component("t", "state.unheard-of", "  ignoreErrors: true")
        + &component("u", "state.mirror", "");
    let api = fixture(&yaml).app("a").await.expect("starts without them");
    assert_eq!(names(&api), ["u"]);
}

#[tokio::test]
async fn secret_stores_that_wait_for_each_other_are_an_error_and_no_hang() {
    let waits = |name: &str, other: &str| {
        component(
            name,
            "secretstores.vault",
            &format!("  metadata:\n  - {{name: token, secretKeyRef: {{name: db}}}}\nauth: {{secretStore: {other}}}"),
        )
    };
    let error = error(&(waits("x", "y") + &waits("y", "x"))).await;
    assert!(
        error.contains("component x (secretstores.vault/v1): metadata token: auth.secretStore \"y\" is not"),
        "{error}"
    );
}

#[tokio::test]
async fn what_opened_before_a_failure_is_closed_with_the_runtime() {
    let mut fixture = fixture(&(component("s", "state.mirror", "") + &component("t", "state.down", "")));
    fixture.app("a").await.err().expect("t is down");
    fixture.runtime.close().await;
    assert_eq!(fixture.counts.get(), (1, 1));
}

#[tokio::test]
async fn a_configuration_denies_component_types_and_secrets_to_its_app_alone() {
    let mut layers = Layers::default();
    let text =
        "spec:\n  components: {deny: [state.mirror]}\n  secrets: {scopes: [{storeName: vault, deniedSecrets: [db]}]}\n";
    layers.add_text("c.yaml", text, &Env::default()).expect("good");
    let strict = layers.finish().expect("good");
    let mut fixture = fixture(&(component("s", "state.mirror", "") + "---" + VAULT));
    let denied = fixture.app_with(Identity::new("a"), &strict).await.expect("starts");
    let free = fixture.app("b").await.expect("starts");
    assert_eq!((names(&denied), names(&free)), (vec!["vault"], vec!["vault", "s"]));
    let read = async |api: &Api| api.secrets.get(&Ctx::default(), "vault", "db", &Default::default()).await;
    assert_eq!(read(&denied).await.err().map(|error| error.code()), Some(Code::SecretDenied));
    assert_eq!(read(&free).await.expect("allowed")["password"], "hunter2");
}

#[tokio::test]
async fn facts_are_those_of_the_app() {
    let mut fixture = fixture(&(component("s", "state.mirror", "") + "---" + VAULT));
    let connection = AppConnection { port: Some(8080), protocol: "http".into(), ..AppConnection::default() };
    let api = fixture
        .runtime
        .api_for(Identity::new("a"), &Configuration::default(), connection.clone())
        .await
        .expect("starts");
    let facts = api.metadata.facts();
    assert_eq!(facts.runtime_version, "1.2.3");
    assert_eq!(facts.app_connection, connection);
    assert_eq!(facts.components[0].capabilities, Vec::<&str>::new());
    assert_eq!(facts.components[1].capabilities, ["ETAG", "TRANSACTIONAL", "ACTOR"]);
    assert!(api.health.check_outbound().is_err(), "not ready before its servers are");
}

#[tokio::test]
async fn apps_of_a_runtime_call_each_other_by_id() {
    let mut fixture = fixture("");
    let caller = fixture.app("caller").await.expect("starts");
    fixture.app("callee").await.expect("starts");
    let echo =
        app::from_fn(|request: Request| async move { Response::new(Body::from(request.uri().path().to_owned())) });
    fixture.runtime.local_apps().register(&Identity::new("callee"), Arc::new(echo)).expect("free");
    let request = http::Request::get("/hello").body(Body::Empty).expect("a request");
    let response = caller.invoke.call(&Ctx::default(), "callee", request).await.expect("answers");
    assert_eq!(response.into_body().collect(100).await.expect("a body"), "/hello");
}

mod endpoints {
    //! HTTP endpoints: what their clients are made of.

    use std::sync::Mutex;

    use async_trait::async_trait;
    use trilby_core::{ChannelError, invoke::HttpClient};
    use trilby_runtime::{HttpClientFactory, TlsSettings};

    use super::*;

    /// Answers with the URL and the header `token` that it was sent.
    struct Echo;

    #[async_trait]
    impl HttpClient for Echo {
        async fn send(&self, request: Request) -> Result<Response, ChannelError> {
            let token = request.headers().get("token").and_then(|value| value.to_str().ok()).unwrap_or("none");
            Ok(Response::new(Body::from(format!("{} {token}", request.uri()))))
        }
    }

    type Made = Arc<Mutex<Vec<TlsSettings>>>;

    fn fixture_with_client(yaml: &str) -> (Runtime, Made) {
        let made = Made::default();
        let notes = Arc::clone(&made);
        let factory: HttpClientFactory = Arc::new(move |tls: &TlsSettings| {
            if tls.root_ca.as_deref() == Some("broken") {
                return Err("rootCA holds no certificate".into());
            }
            notes.lock().expect("no test panics here").push(tls.clone());
            Ok(Arc::new(Echo) as Arc<dyn HttpClient>)
        });
        let mut resources = Resources::strict();
        resources.read_text("r.yaml", yaml).expect("good YAML");
        let catalog = catalog(&Arc::default());
        let options = Options { catalog, resources, http_clients: Some(factory), ..Options::default() };
        (Runtime::new(options), made)
    }

    async fn start(runtime: &mut Runtime, id: &str) -> Result<Api, StartError> {
        runtime.api_for(Identity::new(id), &Configuration::default(), AppConnection::default()).await
    }

    #[tokio::test]
    async fn an_endpoint_is_called_with_its_headers_and_its_own_tls() {
        let yaml = endpoint("plain", "{baseUrl: 'http://plain/v1', headers: [{name: token, value: t}]}")
            + &endpoint(
                "private",
                "{baseUrl: 'https://private', clientTLS: {rootCA: {value: CA}, privateKey: {secretKeyRef: {name: db, key: \
                 password}}}}\nauth: {secretStore: vault}",
            )
            + "---"
            + VAULT;
        let (mut runtime, made) = fixture_with_client(&yaml);
        let a = start(&mut runtime, "a").await.expect("starts");
        start(&mut runtime, "b").await.expect("starts");
        assert_eq!(a.metadata.facts().http_endpoints, ["plain", "private"]);
        let request = http::Request::get("/x?q=1").body(Body::Empty).expect("a request");
        let response = a.invoke.call(&Ctx::default(), "plain", request).await.expect("answers");
        assert_eq!(response.into_body().collect(100).await.expect("a body"), "http://plain/v1/x?q=1 t");
        let own = TlsSettings { root_ca: Some("CA".into()), certificate: None, private_key: Some("hunter2".into()) };
        let made = made.lock().expect("no test panics here");
        assert!(*made == [TlsSettings::default(), own], "one client for each set of settings");
    }

    #[tokio::test]
    async fn a_bad_endpoint_names_its_field() {
        for (spec, expect) in [
            ("{baseUrl: nothing}", "spec.baseUrl \"nothing\" is not a URL such as https://api.example.com/v2"),
            ("{baseUrl: 'ftp://x'}", "spec.baseUrl \"ftp://x\" is not a URL such as"),
            (
                "{baseUrl: 'http://x', headers: [{name: 'a b', value: c}]}",
                "spec.headers a b: its name is not that of a header",
            ),
            (
                "{baseUrl: 'http://x', headers: [{name: a, value: \"b\\nc\"}]}",
                "spec.headers a: its value is not that of a header",
            ),
            (
                "{baseUrl: 'http://x', clientTLS: {rootCA: {value: broken}}}",
                "spec.clientTLS: rootCA holds no certificate",
            ),
            (
                "{baseUrl: 'http://x', clientTLS: {privateKey: {secretKeyRef: {name: k}}}}",
                "spec.clientTLS.privateKey: secretKeyRef \"k\" without auth.secretStore;",
            ),
        ] {
            let (mut runtime, _) = fixture_with_client(&endpoint("e", spec));
            let error = start(&mut runtime, "a").await.err().expect(spec).to_string();
            let expect = format!("r.yaml: document 1, line 2: HTTP endpoint e: {expect}");
            assert!(error.starts_with(&expect), "{error}\n{expect}");
        }
    }
}

#[tokio::test]
async fn a_consumer_id_is_the_apps_own_unless_one_is_given() {
    let yaml = component("own", "pubsub.post", "")
        + &component("given", "pubsub.post", "  metadata: [{name: consumerID, value: 'x-{appID}'}]")
        + &component("empty", "pubsub.post", "  metadata: [{name: consumerID, value: ' '}]")
        + &component("all", "pubsub.broadcast", "");
    let mut fixture = fixture(&yaml);
    let apis = [fixture.app("a").await.expect("starts"), fixture.app("b").await.expect("starts")];
    for (api, pubsub, consumer) in [
        (&apis[0], "own", "a"),
        (&apis[1], "own", "b"),
        (&apis[0], "given", "x-a"),
        (&apis[1], "given", "x-b"),
        (&apis[0], "empty", "a"),
        (&apis[0], "all", "a"),
        // It means nothing there, so that the apps share what the first one opened.
        (&apis[1], "all", "a"),
    ] {
        let publish = Publish { topic: consumer.into(), ..Publish::default() };
        api.pubsub.publish(&Ctx::default(), pubsub, publish).await.expect(pubsub);
    }
}

const SUBSCRIPTION: &str = "---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: NAME}
spec: {pubsubname: ps, topic: TOPIC, routes: {rules: [{match: \"RULE\", path: /x}], default: /t}}
scopes: [SCOPES]
";

#[tokio::test]
async fn an_app_gets_the_subscriptions_that_are_for_it() {
    let subscription = |name: &str, topic: &str, rule: &str, scopes: &str| {
        let text = SUBSCRIPTION.replace("NAME", name).replace("TOPIC", topic);
        text.replace("RULE", rule).replace("SCOPES", scopes)
    };
    let yaml = component("ps", "pubsub.post", "")
        + &subscription("one", "t", "event.type == 'x'", "")
        + &subscription("two", "u", "", "a")
        + &subscription("two", "v", "", "")
        + &subscription("broken", "w", "event.", "c");
    let mut fixture = fixture(&yaml);
    for (app, topics) in [("a", ["t", "v"]), ("b", ["t", "v"])] {
        let api = fixture.app(app).await.expect("starts");
        let subscriptions = api.pubsub.subscriptions();
        assert_eq!(subscriptions.iter().map(|one| one.topic.as_str()).collect::<Vec<_>>(), topics, "{app}");
    }
    let error = fixture.app("c").await.err().expect("not CEL").to_string();
    assert!(error.contains("Subscription broken: rule \"event.\" is not CEL"), "{error}");
}
