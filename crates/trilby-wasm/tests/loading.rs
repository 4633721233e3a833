//! What is loaded, from where, and what is said of what is not.

#![cfg(feature = "compiler")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use trilby_wasm::{Allocator, Engine, FetchLimits, Kind, LoadReason, Options, Source};

const TEXT: &str = r#"(component
  (core module $m (func (export "one") (result i32) (i32.const 1)))
  (core instance $i (instantiate $m))
  (func (export "one") (result u32) (canon lift (core func $i "one"))))"#;

fn wasm() -> Vec<u8> {
    wat::parse_str(TEXT).expect("the test's own text is valid")
}

fn caching(dir: &Path) -> Engine {
    Engine::new(Options { cache_dir: Some(dir.join("cache")), max_instances: 10, ..Options::default() })
}

fn file(dir: &TempDir, content: &[u8]) -> Source {
    let path = dir.path().join("guest.wasm");
    fs::write(&path, content).expect("written");
    Source::File(path)
}

/// The one entry of the cache.
fn entry(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("cache")).expect("a cache").map(|file| file.expect("readable").path());
    let entries: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "cwasm")).collect();
    let [entry] = &entries[..] else { panic!("one entry, not {entries:?}") };
    entry.clone()
}

async fn reason(engine: &Engine, source: &Source) -> LoadReason {
    engine.load(source).await.expect_err("cannot be loaded").reason
}

#[tokio::test]
async fn compiled_code_is_kept_and_used_again() {
    let dir = TempDir::new().expect("a folder");
    let source = file(&dir, &wasm());
    caching(dir.path()).load(&source).await.expect("compiles");
    let kept = entry(dir.path());
    let written = fs::metadata(&kept).expect("there").modified().expect("known");
    let program = caching(dir.path()).load(&source).await.expect("loads");
    assert_eq!(program.kind(), Kind::Component);
    assert_eq!(fs::metadata(&kept).expect("there").modified().expect("known"), written, "it was not written again");
}

#[tokio::test]
async fn a_changed_or_cut_entry_is_compiled_anew() {
    let dir = TempDir::new().expect("a folder");
    let source = file(&dir, &wasm());
    caching(dir.path()).load(&source).await.expect("compiles");
    let kept = entry(dir.path());
    let sound = fs::read(&kept).expect("readable");

    let mut changed = sound.clone();
    changed[sound.len() / 2] ^= 1;
    for bad in [&changed[..], &sound[..sound.len() - 1], &sound[..100], b""] {
        fs::write(&kept, bad).expect("written");
        caching(dir.path()).load(&source).await.expect("compiles anew");
        assert_eq!(fs::read(&kept).expect("readable").len(), sound.len(), "it is sound again");
    }
}

#[tokio::test]
async fn an_entry_sealed_by_someone_else_is_not_loaded() {
    let dir = TempDir::new().expect("a folder");
    let source = file(&dir, &wasm());
    let engine = caching(dir.path());
    engine.load(&source).await.expect("compiles");
    let kept = entry(dir.path());
    let own = fs::read(&kept).expect("readable");

    let foreign = engine.precompile("guest", &wasm()).expect("compiles");
    assert_ne!(foreign, own, "its seal has another key");
    fs::write(&kept, &foreign).expect("written");
    caching(dir.path()).load(&source).await.expect("compiles anew");
    assert_ne!(fs::read(&kept).expect("readable"), foreign);
}

#[cfg(unix)]
#[tokio::test]
async fn a_key_that_others_can_read_is_replaced() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TempDir::new().expect("a folder");
    let source = file(&dir, &wasm());
    caching(dir.path()).load(&source).await.expect("compiles");
    let key = dir.path().join("cache/key");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&dir.path().join("cache"))), (0o600, 0o700));

    let old = fs::read(&key).expect("readable");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    caching(dir.path()).load(&source).await.expect("compiles anew");
    assert_ne!(fs::read(&key).expect("readable"), old);
    assert_eq!(mode(&key), 0o600);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_done_without() {
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join("cache"), "in the way").expect("written");
    caching(dir.path()).load(&file(&dir, &wasm())).await.expect("compiles");
}

#[tokio::test]
async fn precompiled_code_loads_from_a_named_file() {
    let dir = TempDir::new().expect("a folder");
    for allocator in [Allocator::Pooling, Allocator::OnDemand] {
        let options = || Options { allocator, max_instances: 10, ..Options::default() };
        let compiled = Engine::new(options()).precompile("guest", &wasm()).expect("compiles");
        let program = Engine::new(options()).load(&file(&dir, &compiled)).await.expect("loads");
        assert_eq!(program.surface().exports.functions[0].name, "one");
    }
}

#[tokio::test]
async fn precompiled_code_that_does_not_fit_says_why() {
    let dir = TempDir::new().expect("a folder");
    let pooling = Engine::new(Options { allocator: Allocator::Pooling, max_instances: 10, ..Options::default() });
    let on_demand = Engine::new(Options { allocator: Allocator::OnDemand, ..Options::default() });
    let compiled = pooling.precompile("guest", &wasm()).expect("compiles");

    let other = reason(&on_demand, &file(&dir, &compiled)).await.to_string();
    assert!(
        other.starts_with("is compiled for wasmtime-48 ") && other.contains("on-demand; compile it again"),
        "{other}"
    );

    let mut changed = compiled.clone();
    changed[compiled.len() / 2] ^= 1;
    assert!(matches!(reason(&pooling, &file(&dir, &changed)).await, LoadReason::Damaged));
    assert!(matches!(reason(&pooling, &file(&dir, &compiled[..1000])).await, LoadReason::Unsealed));
    let error = pooling.load_bytes("guest", compiled.into()).await.expect_err("nobody named a file");
    assert!(matches!(error.reason, LoadReason::Untrusted));
}

#[tokio::test]
async fn what_is_no_program_is_called_what_it_is() {
    let dir = TempDir::new().expect("a folder");
    let engine = Engine::new(Options::default());
    let missing = engine.load(&Source::File("no/such.wasm".into())).await.expect_err("missing");
    assert_eq!(missing.to_string(), "no/such.wasm: no such file; check the path");

    assert!(matches!(reason(&engine, &file(&dir, b"hello")).await, LoadReason::NotWasm(_)));
    assert!(matches!(reason(&engine, &file(&dir, TEXT.as_bytes())).await, LoadReason::Text));
    assert!(matches!(reason(&engine, &file(&dir, &wasm()[..60])).await, LoadReason::Truncated(60)));
    assert!(matches!(reason(&engine, &Source::File(dir.path().into())).await, LoadReason::Read(_)));

    let mut nonsense = wasm();
    nonsense[10..].fill(0xff);
    assert!(matches!(reason(&engine, &file(&dir, &nonsense)).await, LoadReason::Invalid(_) | LoadReason::Truncated(_)));
    assert!(matches!(reason(&engine, &file(&dir, b"\0asm\x0d\0\x01\0\xff\x00")).await, LoadReason::Invalid(_)));
}

#[tokio::test]
async fn the_same_program_is_compiled_once() {
    let engine = Engine::new(Options { max_instances: 10, ..Options::default() });
    let load = |name: &'static str| engine.load_bytes(name, wasm().into());
    let (a, b) = tokio::join!(load("a"), load("b"));
    let (a, b) = (a.expect("loads"), b.expect("loads"));
    let code = |program: &trilby_wasm::Program| program.component().expect("a component").image_range();
    assert_eq!(code(&a), code(&b), "they share their code");
    assert_eq!((a.name(), b.name()), ("a", "b"));
}

/// Answers each path with what `answer` says, one request a connection.
async fn server(answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let len = connection.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..len]);
            let answer = answer(request.split(' ').nth(1).unwrap_or_default(), &request);
            // A client that has seen enough hangs up, which is no failure here.
            let _ = connection.write_all(&answer).await;
        }
    });
    address
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into()
}

#[tokio::test]
async fn programs_are_fetched_from_addresses() {
    let compiled = Engine::new(Options::default()).precompile("guest", &wasm()).expect("compiles");
    let address = server(move |path, _| match path {
        "/guest.wasm" => ok(&wasm()),
        "/moved" => moved("guest.wasm"),
        "/circle" => moved("/circle"),
        "/page" => ok(b"<!doctype html>"),
        "/guest.cwasm" => ok(&compiled),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
    })
    .await;
    let engine = Engine::new(Options::default());
    let at = |path: &str| Source::parse(&format!("{address}{path}")).expect("an address");

    assert_eq!(engine.load(&at("/guest.wasm")).await.expect("loads").kind(), Kind::Component);
    assert_eq!(engine.load(&at("/moved")).await.expect("loads").kind(), Kind::Component);
    assert!(matches!(reason(&engine, &at("/circle")).await, LoadReason::Redirects(5)));
    assert!(matches!(reason(&engine, &at("/page")).await, LoadReason::NotWasm(_)));
    assert!(matches!(reason(&engine, &at("/guest.cwasm")).await, LoadReason::Untrusted));
    let missing = engine.load(&at("/missing")).await.expect_err("missing").to_string();
    assert_eq!(missing, format!("{address}/missing: cannot be fetched: the server answered 404 Not Found"));

    let small = FetchLimits { bytes: 10, ..FetchLimits::default() };
    assert!(matches!(at("/guest.wasm").fetch(&small).await, Err(LoadReason::TooLarge(10))));
}

/// A registry of `tool:1`, an index of several manifests, which asks for a token. `layer` is what it sends for the layer
/// with the digest of `digest_of`. Returns its address and the digest of the manifest.
async fn registry(layer: Vec<u8>, digest_of: Vec<u8>) -> (String, String) {
    let digest = |content: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(content)));
    let layer_digest = digest(&digest_of);
    let manifest = format!(
        r#"{{"layers":[{{"mediaType":"text/plain","digest":"sha256:0"}},
            {{"mediaType":"application/wasm","digest":"{layer_digest}"}}]}}"#
    );
    let manifest_digest = digest(manifest.as_bytes());
    let index = format!(
        r#"{{"manifests":[{{"digest":"sha256:0"}},
            {{"digest":"{manifest_digest}","platform":{{"architecture":"wasm","os":"wasip1"}}}}]}}"#
    );
    let named = manifest_digest.clone();
    let address = server(move |path, request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
        let is_known = request.contains("authorization: Bearer secret");
        match path {
            "/token?service=here&scope=repository:tool:pull" => ok(br#"{"token":"secret"}"#),
            _ if !is_known => format!(
                "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{host}/token\",\
                 service=\"here\",scope=\"repository:tool:pull\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            .into(),
            "/v2/tool/manifests/1" => ok(index.as_bytes()),
            path if path.ends_with(&manifest_digest) => ok(manifest.as_bytes()),
            path if path.ends_with(&layer_digest) => ok(&layer),
            _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
        }
    });
    (address.await.replace("http://", "oci://"), named)
}

#[tokio::test]
async fn programs_are_fetched_from_registries() {
    let engine = Engine::new(Options::default());
    let (address, manifest) = registry(wasm(), wasm()).await;
    let at = |name: &str| Source::parse(&format!("{address}/{name}")).expect("a reference");
    let program = engine.load(&at("tool:1")).await.expect("loads");
    assert_eq!((program.kind(), program.name()), (Kind::Component, &*format!("{address}/tool:1")));
    assert!(matches!(reason(&engine, &at("tool:2")).await, LoadReason::Status(_)));
    let pinned = engine.load(&at(&format!("tool@{manifest}"))).await.expect("loads");
    assert_eq!(pinned.name(), format!("{address}/tool@{manifest}"));

    let (address, _) = registry(b"forged".to_vec(), wasm()).await;
    let forged = reason(&engine, &Source::parse(&format!("{address}/tool:1")).expect("a reference")).await;
    assert!(forged.to_string().contains("what was sent is not what sha256:"), "{forged}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let source = Source::parse(&address).expect("an address");
    let limits = FetchLimits { timeout: Duration::from_millis(100), ..FetchLimits::default() };
    assert!(matches!(source.fetch(&limits).await, Err(LoadReason::Timeout(_))));
    drop(listener);
    assert!(matches!(source.fetch(&limits).await, Err(LoadReason::Fetch(_))), "refused");
}

#[tokio::test]
async fn what_a_program_needs_and_offers_can_be_read() {
    let engine = Engine::new(Options { max_instances: 10, ..Options::default() });
    let text = r#"(component
      (import "wasi:clocks/monotonic-clock@0.2.0" (instance
        (export "now" (func (result u64)))))
      (import "plain" (func))
      (core module $m (func (export "run") (result i32) (i32.const 0)))
      (core instance $i (instantiate $m))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $out (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $out)))"#;
    let program = engine.load_bytes("guest", wat::parse_str(text).expect("valid").into()).await.expect("loads");
    let surface = program.surface();
    let clock = surface.imports.interface("wasi:clocks/monotonic-clock").expect("imported");
    assert_eq!(clock.to_string(), "wasi:clocks/monotonic-clock@0.2.0");
    assert_eq!(clock.version.as_deref(), Some("0.2.0"));
    assert_eq!(clock.functions[0].name, "now");
    assert!(!clock.functions[0].is_async);
    assert_eq!(surface.imports.functions[0].name, "plain");
    assert_eq!(surface.exports.interface("wasi:cli/run").expect("exported").functions[0].name, "run");

    let text = r#"(module
      (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
      (memory (export "memory") 1)
      (func (export "_start")))"#;
    let program = engine.load_bytes("guest", wat::parse_str(text).expect("valid").into()).await.expect("loads");
    assert_eq!(program.kind(), Kind::Module);
    let surface = program.surface();
    assert_eq!(surface.imports.interfaces[0].functions[0].name, "proc_exit");
    assert_eq!(surface.exports.functions[0].name, "_start");
    assert_eq!(surface.exports.others, ["memory"]);
    let wrong = program.component().expect_err("it is none").to_string();
    assert_eq!(wrong, "guest: is a core module; a component is needed here");
}
