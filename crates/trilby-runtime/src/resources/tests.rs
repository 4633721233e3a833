//! What is read, what is skipped, and what an error says.

use super::*;

const STORE: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
  namespace: prod
spec:
  type: state.redis
  version: v1
  ignoreErrors: true
  initTimeout: 1m
  metadata:
  - name: redisHost
    value: localhost:6379
  - name: redisPassword
    secretKeyRef: {name: redis, key: password}
auth:
  secretStore: vault
scopes: [a, b]
";

fn strict_error(text: &str) -> String {
    let mut resources = Resources::strict();
    resources.read_text("r.yaml", text).expect_err("bad input").to_string()
}

/// A lenient reading of the same text leaves the good documents.
fn lenient_count(text: &str) -> usize {
    let mut resources = Resources::lenient();
    resources.read_text("r.yaml", text).expect("lenient");
    resources.components.len()
}

#[test]
fn a_component_is_read_as_written() {
    let mut resources = Resources::strict();
    resources.read_text("r.yaml", STORE).expect("a good component");
    let component = resources.components().next().expect("one");
    assert_eq!(component.header.origin.to_string(), "r.yaml: document 1, line 2");
    assert_eq!(component.header.name, "statestore");
    assert_eq!(component.header.namespace.as_deref(), Some("prod"));
    assert_eq!(component.header.secret_store.as_deref(), Some("vault"));
    assert_eq!(component.header.scopes, ["a", "b"]);
    assert_eq!((component.type_name.as_str(), component.version.as_str()), ("state.redis", "v1"));
    assert!(component.ignore_errors);
    assert_eq!(component.init_timeout, Duration::from_secs(60));
    let names: Vec<_> = component.metadata.iter().map(|pair| pair.name.as_str()).collect();
    assert_eq!(names, ["redisHost", "redisPassword"]);
}

#[test]
fn what_is_not_written_has_daprs_defaults() {
    let mut resources = Resources::strict();
    let text = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec:\n  type: state.x\n  metadata:\nscopes:\nauth:\n";
    resources.read_text("r.yaml", text).expect("nulls are nothing");
    let component = resources.components().next().expect("one");
    assert_eq!(component.init_timeout, Duration::from_secs(5));
    assert!(!component.ignore_errors && component.metadata.is_empty() && component.header.scopes.is_empty());
    assert_eq!(component.header.secret_store, None);
}

#[test]
fn an_endpoint_is_read_in_either_spelling() {
    for spelling in ["baseUrl", "baseURL"] {
        let mut resources = Resources::strict();
        let text = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {{name: e}}\nspec:\n  version: v1alpha1\n  \
             {spelling}: https://x\n  headers: [{{name: h, value: v}}]\n  clientTLS: {{rootCA: {{value: PEM}}}}\n"
        );
        resources.read_text("r.yaml", &text).expect("a good endpoint");
        let endpoint = resources.endpoints().next().expect("one");
        assert_eq!(endpoint.base_url, "https://x");
        assert_eq!(endpoint.root_ca, Some(Source::Literal("PEM".into())));
        assert_eq!(endpoint.headers.len(), 1);
    }
}

#[test]
fn kinds_of_later_versions_and_of_others_are_no_errors() {
    for (api, kind) in [
        ("dapr.io/v1alpha1", "WorkflowAccessPolicy"),
        ("dapr.io/v1alpha1", "MCPServer"),
        ("dapr.io/v1alpha1", "Configuration"),
        ("apps/v1", "Deployment"),
        ("v1", "Secret"),
    ] {
        let mut resources = Resources::strict();
        resources.read_text("r.yaml", &format!("apiVersion: {api}\nkind: {kind}\n")).expect(kind);
        assert_eq!(resources.components.len(), 0);
    }
}

#[test]
fn an_error_names_file_document_line_and_fix() {
    let second = |text: &str| format!("{STORE}---\n{text}");
    for (text, expect) in [
        ("a: [1, 2\nb: 3\n", "r.yaml: document 2, line 22: did not find expected ',' or ']'"),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Compnent\n",
            "r.yaml: document 2, line 21: unknown kind \"Compnent\"; Dapr's kinds are Component, Configuration, HTTPEndpoint, \
             Subscription, Resiliency, MCPServer, WorkflowAccessPolicy",
        ),
        ("kind: Component\n", "r.yaml: document 2, line 21: a Component with no apiVersion, expected dapr.io/v1alpha1"),
        (
            "apiVersion: dapr.io/v2\nkind: Component\n",
            "r.yaml: document 2, line 21: a Component with apiVersion dapr.io/v2, expected dapr.io/v1alpha1",
        ),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a/b}\nspec: {type: state.x}\n",
            "r.yaml: document 2, line 21: metadata.name \"a/b\" must not be empty, '.' or '..', nor contain '/' or '%'",
        ),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec:\n  type: state.x\n  initTimeout: soon\n",
            "r.yaml: document 2, line 21: spec.initTimeout \"soon\" is not a duration such as 5s or 1m30s",
        ),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec:\n  version: v1\n",
            "r.yaml: document 2, line 25: spec: missing field `type`",
        ),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec:\n  type: state.x\n  metadata:\n    host: x\n",
            "r.yaml: document 2, line 27: spec.metadata: invalid type: map, expected a sequence",
        ),
        ("just text", "r.yaml: document 2, line 21: invalid type: string \"just text\", expected struct TypeMeta"),
    ] {
        let error = strict_error(&second(text));
        assert!(error.starts_with(expect), "{error}\n{expect}");
        assert_eq!(lenient_count(&format!("{}\n---{STORE}", second(text))), 2, "{text}");
    }
}

#[test]
fn a_directory_is_read_by_name_and_not_deeply() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, component: &str| {
        let text = STORE.replace("statestore", component);
        fs::write(directory.path().join(name), text).expect("written");
    };
    write("b.yml", "second");
    write("a.YAML", "first");
    write("c.json", "never");
    write("c.yaml.bak", "never");
    fs::create_dir(directory.path().join("d.yaml")).expect("a directory");
    let mut resources = Resources::strict();
    resources.read_directory(directory.path()).expect("readable");
    let names: Vec<_> = resources.components().map(|component| component.header.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);

    let missing = directory.path().join("missing");
    let error = resources.read_directory(&missing).expect_err("not there").to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", missing.display())), "{error}");
}

#[test]
fn scopes_and_namespaces_decide_who_sees_a_resource() {
    let mut resources = Resources::strict();
    resources.read_text("r.yaml", STORE).expect("a good component");
    let header = &resources.components().next().expect("one").header;
    let app = |id: &str, namespace: Option<&str>| Identity { id: id.into(), namespace: namespace.map(str::to_owned) };
    assert!(header.is_visible_to(&app("a", Some("prod"))));
    assert!(header.is_visible_to(&app("a", None)));
    assert!(!header.is_visible_to(&app("a", Some("test"))));
    assert!(!header.is_visible_to(&app("c", Some("prod"))));
}

#[test]
fn resources_for_some_apps_are_still_scoped() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let read = |text: &str| {
        let mut resources = Resources::strict();
        resources.read_text("r.yaml", text).expect("a good component");
        resources
    };
    let open = STORE.replace("scopes: [a, b]", "");
    let mut all = read(STORE).only_for(&ids(&["b", "c"]));
    all.append(read(&open).only_for(&ids(&["c"])));
    all.append(read(STORE).only_for(&ids(&["c"])));
    let scopes: Vec<_> = all.components().map(|component| component.header.scopes.clone()).collect();
    assert_eq!(scopes, [ids(&["b"]), ids(&["c"])]);
}
