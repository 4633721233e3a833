//! Dapr's multi-app file: `version: 1`, what the apps have in common, and the apps.

mod fields;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_norway::{Mapping, Value};

use self::fields::fields;
use super::settings::{Own, Shared};
use crate::suggest;

/// The name that is looked for in a folder.
const NAME: &str = "dapr.yaml";
/// The only version there is.
const VERSION: u64 = 1;
const TOP_LEVEL: [&str; 4] = ["version", "name", "common", "apps"];

/// A file that was read: every path in it absolute, or as absolute as the file's own.
#[derive(Debug, PartialEq)]
pub(super) struct File {
    /// Folder of the file.
    pub folder: PathBuf,
    pub common: Shared,
    /// Never empty; each with what it has in common with the others.
    pub apps: Vec<(Own, Shared)>,
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub(super) struct Invalid {
    pub path: PathBuf,
    pub message: String,
}

/// Reads a file, or the `dapr.yaml` of a folder.
///
/// # Errors
/// If it is not there, is not YAML, or says what cannot be understood. Nothing is passed over in silence.
pub(super) fn read(path: &Path) -> Result<File, Invalid> {
    let path = if path.is_dir() { path.join(NAME) } else { path.to_owned() };
    let invalid = |message| Invalid { path: path.clone(), message };
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => invalid("no such file; give the multi-app file with -f".into()),
        _ => invalid(format!("cannot be read: {error}")),
    })?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse(&text, folder).map_err(invalid)
}

fn parse(text: &str, folder: &Path) -> Result<File, String> {
    let top: Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let top = mapping(top, "the file")?;
    check_keys(&top, &TOP_LEVEL, "")?;
    check_version(top.get("version"))?;
    let common: Shared = section(top.get("common").cloned().unwrap_or_default(), "common")?;
    let common = resolve_shared(common, folder);

    let Some(Value::Sequence(entries)) = top.get("apps").filter(|apps| !apps.is_null()) else {
        return Err("apps: expected a list of apps".into());
    };
    if entries.is_empty() {
        return Err("apps: the list is empty; there is nothing to run".into());
    }
    let mut apps: Vec<(Own, Shared)> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        apps.push(app(entry.clone(), &place(index, entry), &common, folder)?);
    }
    check_ids(&apps)?;
    Ok(File { folder: folder.to_owned(), common, apps })
}

fn check_version(version: Option<&Value>) -> Result<(), String> {
    match version.map(|version| (version.as_u64(), version)) {
        Some((Some(VERSION), _)) => Ok(()),
        None => Err(format!("required field 'version' not found; this build reads version: {VERSION}")),
        Some((_, found)) => {
            let found = serde_json::to_string(found).unwrap_or_default();
            Err(format!("version: found {found}; this build reads version {VERSION}"))
        }
    }
}

/// An app by its number, and by its id if it has one.
fn place(index: usize, entry: &Value) -> String {
    match entry.get("appID").and_then(Value::as_str) {
        Some(id) => format!("apps[{index}] ({id})"),
        None => format!("apps[{index}]"),
    }
}

fn app(entry: Value, place: &str, common: &Shared, base: &Path) -> Result<(Own, Shared), String> {
    let entry = mapping(entry, place)?;
    let known: Vec<_> = fields::<Own>().iter().chain(fields::<Shared>()).copied().collect();
    check_keys(&entry, &known, place)?;
    let mut own: Own = decode(&entry, fields::<Own>(), place)?;
    let shared: Shared = decode(&entry, fields::<Shared>(), place)?;
    for (key, value) in
        [("containerImage", &own.container_image), ("containerImagePullPolicy", &own.container_image_pull_policy)]
    {
        if value.is_some() {
            tracing::debug!("{place}: {key} is for Kubernetes and has no effect");
        }
    }
    if own.wasm.is_some() && !own.command.is_empty() {
        return Err(format!("{place}: has both wasm and command; an app is one or the other"));
    }

    let folder = own.app_dir_path.as_deref().map_or_else(|| base.to_owned(), |path| resolve(base, path));
    if !folder.is_dir() {
        return Err(format!("{place}: appDirPath {} is not a folder", folder.display()));
    }
    own.wasm = own.wasm.map(|wasm| resolve_program(&folder, &wasm));
    own.unix_domain_socket = own.unix_domain_socket.map(|path| resolve(&folder, &path));
    for directory in &mut own.wasm_options.directories {
        directory.host = resolve(&folder, Path::new(&directory.host)).to_string_lossy().into_owned();
    }
    own.app_id = own.app_id.filter(|id| !id.is_empty()).or_else(|| folder_name(&folder));
    own.app_dir_path = Some(folder.clone());
    Ok((own, with_local_files(resolve_shared(shared, &folder), &folder).over(common)))
}

/// The resources and the Configuration that lie in an app's `.dapr` folder stand before the common ones.
fn with_local_files(mut shared: Shared, folder: &Path) -> Shared {
    let local = folder.join(".dapr");
    if shared.resources_paths.is_empty() && local.join("resources").is_dir() {
        shared.resources_paths.push(local.join("resources"));
    }
    if shared.config_file_path.is_none() && local.join("config.yaml").is_file() {
        shared.config_file_path = Some(local.join("config.yaml"));
    }
    shared
}

fn folder_name(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    Some(folder.file_name()?.to_string_lossy().into_owned())
}

fn check_ids(apps: &[(Own, Shared)]) -> Result<(), String> {
    for (index, (app, _)) in apps.iter().enumerate() {
        if let Some(first) = apps[..index].iter().position(|(other, _)| other.app_id == app.app_id) {
            let id = app.app_id.as_deref().unwrap_or_default();
            return Err(format!(
                "apps[{first}] and apps[{index}] have the same appID {id}; every app needs one of its own"
            ));
        }
    }
    Ok(())
}

/// Joins the two spellings of the resource paths and makes every path independent of the working folder.
fn resolve_shared(mut shared: Shared, base: &Path) -> Shared {
    shared.resources_paths.extend(shared.resources_path.take());
    shared.resources_paths = shared.resources_paths.iter().map(|path| resolve(base, path)).collect();
    shared.config_file_path = shared.config_file_path.map(|path| resolve(base, &path));
    shared
}

fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

fn resolve_program(folder: &Path, program: &str) -> String {
    if program.contains("://") { program.to_owned() } else { folder.join(program).to_string_lossy().into_owned() }
}

fn section<T: DeserializeOwned + Default>(value: Value, place: &str) -> Result<T, String> {
    if value.is_null() {
        return Ok(T::default());
    }
    let map = mapping(value, place)?;
    check_keys(&map, fields::<T>(), place)?;
    decode(&map, fields::<T>(), place)
}

fn mapping(value: Value, place: &str) -> Result<Mapping, String> {
    match value {
        Value::Mapping(map) => Ok(map),
        Value::Null => Err(format!("{place} is empty")),
        _ => Err(format!("{place}: expected names and values")),
    }
}

fn check_keys(map: &Mapping, known: &[&str], place: &str) -> Result<(), String> {
    let prefix = if place.is_empty() { String::new() } else { format!("{place}: ") };
    for key in map.keys() {
        let Some(key) = key.as_str() else { return Err(format!("{prefix}a name must be a text")) };
        if !known.contains(&key) {
            let nearest = suggest::nearest(key, known.iter().copied());
            return Err(format!("{prefix}unknown key {key}{}", suggest::phrase(nearest)));
        }
    }
    Ok(())
}

/// Decodes what is known of a mapping, key by key first: the decoder itself does not say which one it did not like.
fn decode<T: DeserializeOwned>(map: &Mapping, known: &[&str], place: &str) -> Result<T, String> {
    let is_known = |key: &Value| key.as_str().is_some_and(|key| known.contains(&key));
    let ours: Mapping = map
        .iter()
        .filter(|(key, value)| is_known(key) && !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for (key, value) in &ours {
        let one: Mapping = [(key.clone(), value.clone())].into_iter().collect();
        let key = key.as_str().unwrap_or_default();
        serde_norway::from_value::<T>(Value::Mapping(one)).map_err(|error| format!("{place}: {key}: {error}"))?;
    }
    serde_norway::from_value(Value::Mapping(ours)).map_err(|error| format!("{place}: {error}"))
}

#[cfg(test)]
mod tests;
