//! What a Configuration comes to, how layers add up, and what is refused.

use std::time::Duration;

use super::*;

fn configuration(layers: &[&str]) -> Result<Configuration, StartError> {
    let env = [("DENIED", "s2"), ("EMPTY", "")].into_iter().collect();
    let mut stack = Layers::default();
    for layer in layers {
        stack.add_text(
            "config.yaml",
            &format!("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n{layer}"),
            &env,
        )?;
    }
    stack.finish()
}

#[test]
fn no_layer_is_daprs_default() {
    let configuration = configuration(&[]).expect("nothing to refuse");
    assert_eq!(configuration, Configuration::default());
    assert!(configuration.features.is_empty());
    assert!(configuration.metrics_enabled);
    assert!(configuration.allows_component("state.redis", "v1"));
}

#[test]
fn sections_come_out_as_written() {
    let configuration = configuration(&["
  secrets:
    scopes:
    - {storeName: vault, defaultAccess: Deny, allowedSecrets: [s1], deniedSecrets: [$DENIED]}
  api:
    denied: [{name: state, version: v1.0, protocol: HTTP}]
  components:
    deny: [bindings.http, state.redis/v1]
  features: [{name: HotReload, enabled: false}, {name: New, enabled: true}]
  logging: {apiLogging: {enabled: true, obfuscateURLs: true}}
  metrics: {enabled: false}
  wasm: {strictSandbox: true, memory: 64Mi, callTimeout: 10s, isolation: request, maxConcurrency: 8, allowedHosts: [x.org]}
  tracing: {samplingRate: \"1\"}
  accessControl: {defaultAction: allow}
"])
    .expect("all good");
    let scope = Scope { deny_by_default: true, allowed: vec!["s1".into()], denied: vec!["s2".into()] };
    assert_eq!(configuration.secret_scopes["vault"], scope);
    let rule = ApiRule { name: "state".into(), version: "v1.0".into(), protocol: Protocol::Http };
    assert_eq!(configuration.api, ApiAccess { allowed: vec![], denied: vec![rule] });
    assert!(!configuration.allows_component("bindings.http", "v2"));
    assert!(!configuration.allows_component("state.redis", "v1"));
    assert!(configuration.allows_component("state.redis", "v2"));
    assert_eq!(configuration.features, ["New"]);
    assert_eq!(
        configuration.api_logging,
        ApiLogging { enabled: true, obfuscate_urls: true, omit_health_checks: false }
    );
    assert!(!configuration.metrics_enabled);
    let wasm = &configuration.wasm;
    assert!(wasm.strict_sandbox);
    assert_eq!(wasm.memory_bytes, Some(64 << 20));
    assert_eq!(wasm.call_timeout, Some(Duration::from_secs(10)));
    assert_eq!((wasm.isolation, wasm.max_concurrency), (Some(Isolation::Request), Some(8)));
    assert_eq!(wasm.allowed_hosts, ["x.org"]);
}

#[test]
fn a_layer_replaces_values_and_lists_and_leaves_the_rest() {
    let configuration = configuration(&[
        "  components: {deny: [a.b, c.d]}\n  logging: {apiLogging: {enabled: true, obfuscateURLs: true}}\n",
        "  components: {deny: [e.f]}\n  logging: {apiLogging: {enabled: false}}\n  metric:\n",
    ])
    .expect("all good");
    assert_eq!(configuration.denied_components, ["e.f"]);
    assert_eq!(
        configuration.api_logging,
        ApiLogging { enabled: false, obfuscate_urls: true, omit_health_checks: false }
    );
}

#[test]
fn an_apps_own_settings_go_over_its_configuration() {
    let read = |text: &str| serde_norway::from_str::<WasmSettings>(text).expect("good settings");
    let own = read("{memory: 1Mi, env: {A: own}, allowedHosts: [own.org]}");
    let below = read("{memory: 2Mi, maxConcurrency: 3, env: {A: below, B: below}, allowedHosts: [below.org]}");
    let both = own.over(&below);
    assert_eq!((both.memory_bytes, both.max_concurrency), (Some(1 << 20), Some(3)));
    assert_eq!(both.env, [("A".into(), "own".into()), ("B".into(), "below".into())].into());
    assert_eq!(both.allowed_hosts, ["own.org", "below.org"]);
}

#[test]
fn what_would_leave_a_door_open_is_refused() {
    for (layer, expect) in [
        (
            "  httpPipeline: {handlers: [{name: auth, type: middleware.http.bearer}]}\n",
            "config.yaml: spec.httpPipeline: handler middleware.http.bearer: this version has no middleware; remove the \
             handlers, or what they guard is open",
        ),
        (
            "  accessControl: {defaultAction: deny}\n",
            "config.yaml: spec.accessControl: this version denies no service invocation; remove what is denied, or it would \
             be open",
        ),
        (
            "  accessControl: {policies: [{appId: a, operations: [{name: /x, action: deny}]}]}\n",
            "config.yaml: spec.accessControl: ",
        ),
        (
            "  secrets: {scopes: [{storeName: a, defaultAccess: maybe}]}\n",
            "config.yaml: spec.secrets.scopes: defaultAccess maybe can be either allow or deny",
        ),
        (
            "  secrets: {scopes: [{storeName: a}, {storeName: a}]}\n",
            "config.yaml: spec.secrets.scopes: a storeName is repeated in secrets configuration",
        ),
        (
            "  api: {denied: [{name: state, version: v1.0, protocol: htp}]}\n",
            "config.yaml: spec.api.denied: protocol \"htp\" of state, expected http or grpc",
        ),
        (
            "  wasm: {memroy: 1Mi}\n",
            "config.yaml: document 1, line 4: spec.wasm: unknown field `memroy`, expected one of",
        ),
        ("  wasm: {memory: much}\n", "config.yaml: document 1, line 4: spec.wasm: \"much\" is not a size such as 64Mi"),
        ("  wasm: {callTimeout: soon}\n", "config.yaml: document 1, line 4: spec.wasm: \"soon\" is not a duration"),
        ("  features: [\n", "config.yaml: document 1, line 5: "),
    ] {
        let error = configuration(&[layer]).expect_err(layer).to_string();
        assert!(error.starts_with(expect), "{error}\n{expect}");
    }
}

#[test]
fn another_kind_of_resource_is_not_a_configuration() {
    let mut layers = Layers::default();
    let error = layers.add_text("c.yaml", "kind: Component\n", &Env::default()).expect_err("a component").to_string();
    assert_eq!(
        error,
        "c.yaml: document 1, line 1: a Component, expected a Configuration; pass its directory as a resources path"
    );
    let error = layers.add_file(Path::new("/missing/c.yaml"), &Env::default()).expect_err("no file").to_string();
    assert!(error.starts_with("cannot read /missing/c.yaml: "), "{error}");
    layers.add_text("empty.yaml", "# nothing\n", &Env::default()).expect("nothing to lay on top");
    assert_eq!(layers.finish().expect("nothing"), Configuration::default());
}
