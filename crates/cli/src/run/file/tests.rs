//! What a multi-app file may say, and what is said of one that cannot be understood.

use super::*;

fn parsed(text: &str) -> Result<File, String> {
    parse(text, Path::new("."))
}

fn app_of(entry: &str) -> (Own, Shared) {
    let file = parsed(&format!("version: 1\napps:\n- {}", entry.replace('\n', "\n  ")));
    file.expect(entry).apps.pop().expect("one app")
}

#[test]
fn an_app_has_what_it_says_and_what_all_have() {
    let text = "
version: 1
common:
  logLevel: debug
  resourcesPath: ./res
  env: {A: common, B: common}
apps:
- appID: one
  wasm: one.wasm
  appPort: 8080
  limits: {memory: 64Mi, maxConcurrency: 2}
- appID: two
  appDirPath: .
  command: [python3, two.py]
  daprHTTPPort: 3601
  resourcesPaths: [/abs]
  env: {B: 2}
- appID: three
  appPort: 9000
  appProtocol: grpc
";
    let file = parsed(text).expect("valid");
    let [(one, one_shared), (two, two_shared), (three, three_shared)] = &file.apps[..] else { panic!("three apps") };
    assert_eq!((one.wasm.as_deref(), one.app_port), (Some("./one.wasm"), Some(8080)));
    assert_eq!((one.wasm_options.memory_bytes, one.wasm_options.max_concurrency), (Some(64 << 20), Some(2)));
    assert_eq!(one_shared.resources_paths, [PathBuf::from("././res")]);
    assert_eq!(two.command, ["python3", "two.py"]);
    assert_eq!(two.dapr_http_port, Some(3601));
    assert_eq!(two_shared.resources_paths, [PathBuf::from("/abs")]);
    assert_eq!(two_shared.env.last(), Some(&("B".to_owned(), "2".to_owned())));
    assert_eq!((three.app_port, three_shared.app_protocol.as_deref()), (Some(9000), Some("grpc")));
    assert!(file.apps.iter().all(|(_, shared)| shared.log_level.as_deref() == Some("debug")));
}

#[test]
fn a_program_may_be_an_address() {
    let (own, _) = app_of("{appID: a, wasm: 'https://host/a.wasm'}");
    assert_eq!(own.wasm.as_deref(), Some("https://host/a.wasm"));
}

#[test]
fn an_app_is_named_after_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("orders")).expect("a folder");
    let file = parse("version: 1\napps: [{appDirPath: orders, appPort: 1}]", folder.path()).expect("valid");
    assert_eq!(file.apps[0].0.app_id.as_deref(), Some("orders"));
}

#[test]
fn what_lies_in_an_apps_folder_stands_before_the_common() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("a/.dapr/resources")).expect("a folder");
    let text = "version: 1\ncommon: {resourcesPath: res}\napps: [{appID: a, appDirPath: a}, {appID: b}]";
    let file = parse(text, folder.path()).expect("valid");
    let paths: Vec<_> = file.apps.iter().map(|(_, shared)| shared.resources_paths.clone()).collect();
    assert_eq!(paths, [vec![folder.path().join("a/.dapr/resources")], vec![folder.path().join("res")]]);
}

#[test]
fn whatever_cannot_be_understood_is_named() {
    for (text, expect) in [
        ("", "the file is empty"),
        ("version: 1", "apps: expected a list of apps"),
        ("version: 1\napps: []", "apps: the list is empty; there is nothing to run"),
        ("apps: [{appID: a}]", "required field 'version' not found; this build reads version: 1"),
        ("version: 2\napps: [{appID: a}]", "version: found 2; this build reads version 1"),
        ("version: 1\napp: []", "unknown key app; did you mean apps?"),
        ("version: 1\napps: [{appID: a, appport: 1}]", "apps[0] (a): unknown key appport; did you mean appPort?"),
        ("version: 1\napps: [{appId: a}]", "apps[0]: unknown key appId; did you mean appID?"),
        ("version: 1\ncommon: {colour: red}\napps: [{appID: a}]", "common: unknown key colour"),
        ("version: 1\ncommon: {appPort: 1}\napps: [{appID: a}]", "common: unknown key appPort"),
        (
            "version: 1\napps: [{appID: a}, {appID: b}, {appID: a}]",
            "apps[0] and apps[2] have the same appID a; every app needs one of its own",
        ),
        ("version: 1\napps: [{appID: a, appDirPath: /no/such}]", "apps[0] (a): appDirPath /no/such is not a folder"),
        (
            "version: 1\napps: [{appID: a, wasm: a.wasm, command: [x]}]",
            "apps[0] (a): has both wasm and command; an app is one or the other",
        ),
    ] {
        assert_eq!(parsed(text).expect_err(text), expect);
    }
    for (text, start) in [
        ("version: [", "did not find expected node content"),
        ("version: 1\napps: [{appID: a, appPort: http}]", "apps[0] (a): appPort: invalid type: string \"http\""),
        ("version: 1\napps: [{appID: a, limits: {memory: lots}}]", "apps[0] (a): limits: "),
        ("version: 1\napps: [{appID: a, limits: {memmory: 1}}]", "apps[0] (a): limits: unknown field `memmory`"),
        ("version: 1\napps: [{appID: a, env: {A: [1]}}]", "apps[0] (a): env: A must be a text"),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(error.contains(start), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = read(Path::new("/no/such/dapr.yaml")).expect_err("missing").to_string();
    assert_eq!(error, "/no/such/dapr.yaml: no such file; give the multi-app file with -f");
}

#[test]
fn the_names_of_both_lists_are_known() {
    assert!(fields::<Own>().contains(&"daprHTTPPort") && fields::<Own>().contains(&"limits"));
    assert!(fields::<Shared>().contains(&"resourcesPaths"));
    assert!(fields::<Own>().iter().all(|name| !fields::<Shared>().contains(name)));
}
