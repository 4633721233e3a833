//! `bindings.localstorage`: files in a folder of this machine.
//!
//! Names lead nowhere outside of the folder: `..` and links end at its root, as they would for a process that has no
//! other. Data that is a JSON string is unquoted, and what is base64 after that is decoded, as in Dapr.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self, ErrorKind as IoError},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
};

/// Where no folder may be: the kernel's own files, and the secrets of a pod.
const FORBIDDEN: [&str; 4] = ["/proc", "/sys", "/boot", "/var/run/secrets"];
/// As many links as a path may lead through; the kernel's own number is smaller.
const MAX_LINKS: usize = 255;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// The folder, made if it is not there. Required.
    root_path: PathBuf,
}

/// Makes the folder.
///
/// # Errors
/// `InvalidMetadata` if it is not named, is a file, or lies where none may be; `Denied` if it cannot be made.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let Config { root_path } = request.properties.parse()?;
    let root = blocking(move || prepare(&root_path)).await?;
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(LocalStorage { root: root.into() })) }))
}

struct LocalStorage {
    /// Absolute, and without links.
    root: Arc<Path>,
}

#[async_trait]
impl OutputBinding for LocalStorage {
    fn operations(&self) -> &[&'static str] {
        &["create", "get", "list", "delete"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let named = request.metadata.get("fileName").filter(|name| !name.is_empty()).cloned();
        let (root, data) = (Arc::clone(&self.root), request.data.clone());
        let operation: Box<dyn FnOnce() -> Result<Option<Bytes>> + Send> = match request.operation.as_str() {
            "create" => {
                let name = named.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
                Box::new(move || create(&root, &name, &data))
            }
            "get" => Box::new(move || get(&path(&root, &named.unwrap_or_default())?)),
            "list" => Box::new(move || list(&path(&root, &named.unwrap_or_default())?)),
            "delete" => Box::new(move || delete(&path(&root, &named.unwrap_or_default())?)),
            other => return Err(ComponentError::request(format!("unsupported operation {other}")).into()),
        };
        Ok(InvokeResponse { data: blocking(operation).await?, ..InvokeResponse::default() })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ComponentError::new(ErrorKind::Unavailable, "the process is shutting down")))
}

fn create(root: &Path, name: &str, data: &[u8]) -> Result<Option<Bytes>> {
    let path = path(root, name)?;
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder)
        .map_err(|error| failed(&format!("error creating directory {}", folder.display()), &error))?;
    fs::write(&path, content(data))
        .map_err(|error| failed(&format!("error creating file {}", path.display()), &error))?;
    let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
    Ok(Some(json!({ "fileName": name }).to_string().into()))
}

/// What is to be stored, of what was sent.
fn content(data: &[u8]) -> Vec<u8> {
    let unquoted = serde_json::from_slice::<String>(data).map_or_else(|_| data.to_vec(), String::into_bytes);
    STANDARD.decode(&unquoted).unwrap_or(unquoted)
}

fn get(path: &Path) -> Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content.into())),
        Err(error) if error.kind() == IoError::NotFound => {
            Err(ComponentError::new(ErrorKind::NotFound, format!("file not found: {}", path.display())))
        }
        Err(error) => Err(failed(&format!("error opening path {}", path.display()), &error)),
    }
}

fn list(path: &Path) -> Result<Option<Bytes>> {
    let is_folder = fs::metadata(path)
        .map_err(|error| failed(&format!("error getting stats for path {}", path.display()), &error))?
        .is_dir();
    if !is_folder {
        let message = format!("unable to list files as the file specified is not a directory: {}", path.display());
        return Err(ComponentError::request(message));
    }
    let mut files = Vec::new();
    walk(path, &mut files)
        .map_err(|error| failed(&format!("error listing files in the directory {}", path.display()), &error))?;
    // Dapr's word for no file.
    let files = if files.is_empty() { json!(null) } else { json!(files) };
    Ok(Some(files.to_string().into()))
}

/// Adds the files below a folder, in the order of their names. Links are files here, not ways.
fn walk(folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path().to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn delete(path: &Path) -> Result<Option<Bytes>> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    removed.map_err(|error| failed(&format!("error deleting file {}", path.display()), &error))?;
    Ok(None)
}

/// The folder as an absolute path without links, made if it is not there.
fn prepare(given: &Path) -> Result<PathBuf> {
    if given.as_os_str().is_empty() {
        return Err(ComponentError::metadata("property rootPath must not be empty"));
    }
    let absolute = std::path::absolute(given).map_err(|error| failed("rootPath", &error))?;
    // Checked before anything is made, and again after it, when every link in it is known.
    check_place(&absolute)?;
    if absolute.is_file() {
        return Err(ComponentError::metadata("property rootPath represents a file and not a directory"));
    }
    let unmade = |error: io::Error| {
        failed(&format!("unable to create directory specified by 'rootPath' {}", absolute.display()), &error)
    };
    let known = absolute.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    check_place(&fs::canonicalize(known).map_err(unmade)?)?;
    fs::create_dir_all(&absolute).map_err(unmade)?;
    let root = fs::canonicalize(&absolute).map_err(unmade)?;
    check_place(&root)?;
    Ok(root)
}

fn check_place(path: &Path) -> Result<()> {
    if FORBIDDEN.iter().any(|place| path.starts_with(place)) {
        return Err(ComponentError::metadata("property rootPath points to a disallowed location"));
    }
    Ok(())
}

/// Where a name leads, as seen by someone for whom `root` is all there is.
fn path(root: &Path, name: &str) -> Result<PathBuf> {
    let (mut rest, mut reached, mut links) = (VecDeque::new(), PathBuf::new(), 0);
    let split = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<OsString>>();
    rest.extend(split(Path::new(name)));
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                reached.pop();
            }
            Some(Component::Normal(name)) => match fs::read_link(root.join(&reached).join(name)) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let message =
                            format!("error getting absolute path for file {}: too many links", part.display());
                        return Err(ComponentError::request(message));
                    }
                    if target.is_absolute() {
                        reached.clear();
                    }
                    for part in split(&target).into_iter().rev() {
                        rest.push_front(part);
                    }
                }
                // No link, or nothing at all.
                Err(_) => reached.push(name),
            },
            _ => {}
        }
    }
    Ok(if reached.as_os_str().is_empty() { root.to_owned() } else { root.join(reached) })
}

fn failed(what: &str, error: &io::Error) -> ComponentError {
    let kind = match error.kind() {
        IoError::NotFound => ErrorKind::NotFound,
        IoError::PermissionDenied | IoError::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    ComponentError::new(kind, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use trilby_component::Metadata;

    use super::*;

    async fn binding(root: &Path) -> Arc<Binding> {
        let properties = [("rootPath", root.to_str().expect("UTF-8"))].into_iter().collect();
        open(OpenRequest { name: "files".to_owned(), properties }).await.expect("opens")
    }

    async fn call(binding: &Binding, operation: &str, name: &str, data: &str) -> Result<Option<String>, String> {
        let request = InvokeRequest {
            operation: operation.to_owned(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            metadata: Metadata::from([("fileName".to_owned(), name.to_owned())]),
        };
        let answered = binding.output.as_ref().expect("an output").invoke(&request).await;
        let text = |data: Bytes| String::from_utf8(data.to_vec()).expect("UTF-8");
        answered.map(|answer| answer.data.map(text)).map_err(|failure| failure.error.to_string())
    }

    #[tokio::test]
    async fn files_are_made_read_listed_and_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("there").join("new/root");
        let files = binding(&root).await;
        assert_eq!(call(&files, "list", "", "").await, Ok(Some("null".to_owned())));
        for (name, data, expect) in [
            ("f.txt", r#""hello""#, "hello"),
            ("d/raw", "raw", "raw"),
            ("d/b64", r#""aGk=""#, "hi"),
            ("j", r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            let made = call(&files, "create", name, data).await;
            assert_eq!(made, Ok(Some(format!(r#"{{"fileName":"{name}"}}"#))));
            assert_eq!(call(&files, "get", name, "").await, Ok(Some(expect.to_owned())), "{name}");
        }
        let root = root.display();
        let all = format!(r#"["{root}/d/b64","{root}/d/raw","{root}/f.txt","{root}/j"]"#);
        assert_eq!(call(&files, "list", "", "").await, Ok(Some(all)));
        assert_eq!(call(&files, "delete", "f.txt", "").await, Ok(None));
        assert_eq!(call(&files, "get", "f.txt", "").await, Err(format!("file not found: {root}/f.txt")));
        let error = call(&files, "delete", "f.txt", "").await.expect_err("gone");
        assert!(error.starts_with(&format!("error deleting file {root}/f.txt: ")), "{error}");
        let error = call(&files, "list", "j", "").await.expect_err("a file");
        assert_eq!(error, format!("unable to list files as the file specified is not a directory: {root}/j"));
        let unnamed = call(&files, "create", "", "x").await.expect("made").expect("answered");
        assert_eq!(unnamed.len(), r#"{"fileName":"00000000-0000-0000-0000-000000000000"}"#.len());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn no_name_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        let files = binding(&root).await;
        fs::write(folder.path().join("secret"), "secret").expect("written");
        std::os::unix::fs::symlink("../secret", root.join("up")).expect("linked");
        std::os::unix::fs::symlink("/secret", root.join("absolute")).expect("linked");
        std::os::unix::fs::symlink("loop", root.join("loop")).expect("linked");
        for name in ["../secret", "/secret", "a/../../secret", "up", "absolute", "./../root/../secret"] {
            let error = call(&files, "get", name, "").await.expect_err(name);
            assert!(error.ends_with("root/secret"), "{name}: {error}");
            assert!(error.starts_with("file not found"), "{name}: {error}");
        }
        assert_eq!(call(&files, "create", "../../escape", "x").await, Ok(Some(r#"{"fileName":"escape"}"#.to_owned())));
        assert!(call(&files, "get", "loop", "").await.expect_err("endless").ends_with("too many links"));
    }

    #[tokio::test]
    async fn folders_that_may_not_be_used_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        for (root, expect) in [
            ("", "property rootPath must not be empty"),
            ("/proc/self", "property rootPath points to a disallowed location"),
            ("/var/run/secrets", "property rootPath points to a disallowed location"),
            (file.to_str().expect("UTF-8"), "property rootPath represents a file and not a directory"),
        ] {
            let properties = [("rootPath", root)].into_iter().collect();
            let opened = open(OpenRequest { name: "files".to_owned(), properties }).await;
            assert_eq!(opened.err().expect("refused").to_string(), expect, "{root}");
        }
    }
}
