//! Writes `src/generated` of trilby-proto from the files below `proto/`; with `--check` only says whether it would.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use prost::Message;
use prost_build::Module;
use prost_types::{DescriptorProto, FileDescriptorSet};

const HEADER: &str = "// @generated from proto/ by crates/trilby-proto/gen; edit the .proto files and run it again.\n";

/// File name in the output folder to what the file should hold.
type Files = BTreeMap<String, Vec<u8>>;

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("unknown argument {other}; the only one is --check");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(fresh) if check && !fresh => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Generates everything and compares it with the output folder. True if nothing differed.
fn run(check: bool) -> Result<bool, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = here.join("../../../proto").canonicalize()?;
    let out = here.join("../src/generated");

    let wanted = generate(&protos, here)?;
    let found = read_dir(&out)?;

    let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let differing: Vec<&String> = names.into_iter().filter(|name| wanted.get(*name) != found.get(*name)).collect();
    for name in &differing {
        match wanted.get(*name) {
            _ if check => eprintln!("stale: {name}"),
            Some(content) => {
                eprintln!("writing {name}");
                fs::write(out.join(name), content)?;
            }
            None => {
                eprintln!("removing {name}");
                fs::remove_file(out.join(name))?;
            }
        }
    }
    Ok(differing.is_empty())
}

fn generate(protos: &Path, here: &Path) -> Result<Files, Box<dyn Error>> {
    let mut set = compile(protos)?;
    let mut files = Files::new();
    for (name, source) in rust_sources(&set)? {
        files.insert(name, rustfmt(&(HEADER.to_owned() + &source), here)?);
    }

    // Server reflection needs names and numbers; comments and their positions would make the set larger for nothing.
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    files.insert("descriptor.bin".to_owned(), set.encode_to_vec());
    Ok(files)
}

/// Every file below `protos` and what they import, dependencies first.
fn compile(protos: &Path) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut paths = Vec::new();
    find_protos(protos, &mut paths)?;
    // The order of a folder is the file system's; the output must not depend on it.
    paths.sort();
    Ok(protox::compile(paths, [protos])?)
}

fn find_protos(dir: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, paths)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            paths.push(path);
        }
    }
    Ok(())
}

/// One unformatted Rust file per protobuf package.
fn rust_sources(set: &FileDescriptorSet) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let services = tonic_prost_build::configure()
        // A server then writes only the methods it has; every other answers Unimplemented.
        .generate_default_stubs(true)
        .service_generator();
    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        // Error details travel as Any, which needs the type's URL.
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .service_generator(services);

    let mut set = set.clone();
    set.file.iter_mut().for_each(clear_deprecated);
    let requests =
        set.file.into_iter().map(|file| (Module::from_protobuf_package_name(file.package()), file)).collect();
    let modules = config.generate(requests)?;
    Ok(modules.into_iter().map(|(module, source)| (module.to_file_name_or("_"), source)).collect())
}

/// Takes the deprecation marks off. They tell clients what to avoid, and the descriptor set keeps them; a server has to
/// serve these names all the same, and must not be warned for it.
fn clear_deprecated(file: &mut prost_types::FileDescriptorProto) {
    file.message_type.iter_mut().for_each(clear_message);
    for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
        if let Some(options) = &mut method.options {
            options.deprecated = None;
        }
    }
}

fn clear_message(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        options.deprecated = None;
    }
    for field in &mut message.field {
        if let Some(options) = &mut field.options {
            options.deprecated = None;
        }
    }
    message.nested_type.iter_mut().for_each(clear_message);
}

/// Formats as `cargo fmt` would; the project's rustfmt.toml is found from `here` upwards.
fn rustfmt(source: &str, here: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .current_dir(here)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start rustfmt: {error}; install it with `rustup component add rustfmt`"))?;
    // rustfmt reads all of its input before it writes, so neither side waits for the other. Taking the pipe closes it.
    child.stdin.take().ok_or("rustfmt has no standard input")?.write_all(source.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("rustfmt failed: {}", output.status).into());
    }
    Ok(output.stdout)
}

fn read_dir(dir: &Path) -> std::io::Result<Files> {
    fs::read_dir(dir)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
        })
        .collect()
}
