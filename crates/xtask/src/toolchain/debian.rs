//! Debian's rustc with its Wasm standard library, unpacked beside the system rather than installed into it.
//!
//! The packages may come from a newer release than the machine runs, so rustc is started through the C library that
//! came with it. Linkers are not in these packages: those of the Rust toolchain at hand are linked in.
//!
//! Layout of the folder: `root/` holds the unpacked packages, `bin/rustc` is the script that starts the compiler in
//! them.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Mutex,
    thread,
};

use super::{COMPONENT, MODULE, can_build};
use crate::process::{Result, at, output, run, step, which};

/// Newest first: the first whose compiler works is taken.
const SUITES: &[&str] = &["forky", "trixie"];

/// How one processor is called by Rust, by Debian's packages, by its library folders and by its loader.
struct Names {
    triple: &'static str,
    package: &'static str,
    library: &'static str,
    loader: &'static str,
}

/// The rustc of a folder that [`unpack`] has filled; it need not be there.
pub(super) fn rustc_in(cache: &Path) -> PathBuf {
    cache.join("bin").join("rustc")
}

/// Fills `cache` and gives its rustc. Downloads about 190 MB and takes 800 MB of disk.
///
/// # Errors
/// Not a Debian machine, no archive among its apt sources, or no suite whose compiler runs here.
pub(super) fn unpack(host: &Path, cache: &Path) -> Result<PathBuf> {
    let names = names()?;
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        which(tool).ok_or_else(|| format!("{tool} is not installed, so Debian's compiler cannot be fetched"))?;
    }
    let linkers = linkers(host, &names)?;
    let archive = archive()?;
    let mut last = String::new();
    for suite in SUITES {
        // Built aside and moved in whole, so that a build in another checkout never meets a half of it.
        let work = cache.join(format!("new.{}", process::id()));
        let what = format!("fetch rustc for Wasm from Debian {suite} (about 190 MB, once) into {}", cache.display());
        let made =
            step(&what, || fetch(suite, &archive, &names, &linkers, &work).and_then(|()| adopt(&work, cache, &names)));
        // Best effort: what is left here is only disk space.
        let _ = fs::remove_dir_all(&work);
        match made {
            Ok(()) => return Ok(rustc_in(cache)),
            Err(error) => last = format!("Debian {suite}: {error}"),
        }
    }
    Err(last.into())
}

fn names() -> Result<Names> {
    match (cfg!(target_os = "linux"), ARCH) {
        (true, "x86_64") => Ok(Names {
            triple: "x86_64-unknown-linux-gnu",
            package: "amd64",
            library: "x86_64-linux-gnu",
            loader: "ld-linux-x86-64.so.2",
        }),
        (true, "aarch64") => Ok(Names {
            triple: "aarch64-unknown-linux-gnu",
            package: "arm64",
            library: "aarch64-linux-gnu",
            loader: "ld-linux-aarch64.so.1",
        }),
        _ => Err("Debian's compiler runs on Linux on x86_64 and aarch64 only".into()),
    }
}

/// Folder of `rust-lld` and `wasm-component-ld`.
fn linkers(host: &Path, names: &Names) -> Result<PathBuf> {
    let sysroot = output(Command::new(host).args(["--print", "sysroot"]))?;
    let folder = Path::new(&sysroot).join("lib/rustlib").join(names.triple).join("bin");
    if folder.join("wasm-component-ld").is_file() {
        return Ok(folder);
    }
    Err(format!("no wasm-component-ld in {}", folder.display()).into())
}

/// The Debian archive that this machine already uses: a mirror inside a closed network is known only there.
fn archive() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| archive_in(&text).map(str::to_owned))
        .ok_or_else(|| "no Debian archive in this machine's apt sources".into())
}

/// The first Debian archive in a sources file, of the one-line or the stanza kind.
fn archive_in(sources: &str) -> Option<&str> {
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(str::split_whitespace).find(|word| {
        (word.starts_with("http://") || word.starts_with("https://")) && word.trim_end_matches('/').ends_with("/debian")
    })
}

/// Unpacks the compiler of `suite` and what it loads into `work`.
fn fetch(suite: &str, archive: &str, names: &Names, linkers: &Path, work: &Path) -> Result {
    // A suite that failed halfway may have left this behind.
    let _ = fs::remove_dir_all(work);
    let apt = Apt::new(suite, archive, names, &work.join("apt"))?;
    let debs = work.join("debs");
    let root = work.join("root");
    for folder in [&debs, &root] {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    run(apt.get().arg("update"))?;
    run(apt
        .get()
        .current_dir(&debs)
        .args(["download", "rustc", "libstd-rust-dev-wasm32"])
        .args(apt.needed_by("libstd-rust-dev")?))?;
    unpack_all(&debs, &root)?;
    fs::remove_dir_all(&debs).map_err(at(&debs))?;

    let tools = root.join("usr/lib/rustlib").join(names.triple);
    fs::create_dir_all(&tools).map_err(at(&tools))?;
    symlink(linkers, tools.join("bin"))?;
    // Documentation and package scripts: a quarter of the size, and nothing reads them.
    for unused in ["usr/share", "etc", "var"] {
        let _ = fs::remove_dir_all(root.join(unused));
    }
    write_launcher(work, names)
}

/// Moves what [`fetch`] made into its place, if it works.
fn adopt(work: &Path, cache: &Path, names: &Names) -> Result {
    let rustc = rustc_in(work);
    eprintln!("    {}", output(Command::new(&rustc).arg("--version"))?);
    for target in [names.triple, COMPONENT, MODULE] {
        if !can_build(&rustc, target) {
            return Err(format!("its rustc has no standard library for {target}").into());
        }
    }
    for part in ["bin", "root"] {
        let place = cache.join(part);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(at(&place))?;
        }
        fs::rename(work.join(part), &place).map_err(at(&place))?;
    }
    Ok(())
}

fn unpack_all(debs: &Path, root: &Path) -> Result {
    let files: Vec<PathBuf> = fs::read_dir(debs).map_err(at(debs))?.flatten().map(|entry| entry.path()).collect();
    let queue = Mutex::new(files.into_iter());
    let next = || queue.lock().ok()?.next();
    let worker = || -> Result {
        while let Some(deb) = next() {
            run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
        }
        Ok(())
    };
    // Two: nearly all of the time is one big archive, and the small ones fit beside it.
    thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "unpacking panicked")?)
    })
}

/// The script finds everything relative to itself, so that the folder may be moved, and works when linked to.
fn write_launcher(work: &Path, names: &Names) -> Result {
    let root = work.join("root");
    let loader = [format!("usr/lib/{}", names.library), format!("lib/{}", names.library)]
        .into_iter()
        .map(|folder| format!("{folder}/{}", names.loader))
        .find(|path| root.join(path).is_file())
        .ok_or_else(|| format!("no {} among the packages", names.loader))?;
    let script = format!(
        "#!/bin/sh\n\
         root=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")/root\n\
         libraries=$root/usr/lib/{library}:$root/lib/{library}:$root/usr/lib\n\
         set -- --argv0 rustc \"$root/usr/bin/rustc\" --sysroot \"$root/usr\" \"$@\"\n\
         exec \"$root/{loader}\" --library-path \"$libraries\" \"$@\"\n",
        library = names.library,
    );
    let path = rustc_in(work);
    let bin = work.join("bin");
    fs::create_dir_all(&bin).map_err(at(&bin))?;
    fs::write(&path, script).map_err(at(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at(&path))?;
    Ok(())
}

/// apt with lists, state and cache of its own: it sees one suite, needs no root and leaves the system's apt alone.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, archive: &str, names: &Names, state: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = state.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed_by = if Path::new(keyring).is_file() { format!(" signed-by={keyring}") } else { String::new() };
        let sources = state.join("sources.list");
        fs::write(&sources, format!("deb [arch={}{signed_by}] {archive} {suite} main\n", names.package))
            .map_err(at(&sources))?;
        // Nothing is installed as far as this apt knows, so that it names every package that is needed.
        let status = state.join("status");
        fs::write(&status, "").map_err(at(&status))?;

        let settings = [
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State", state.display().to_string()),
            ("Dir::State::Lists", state.join("lists").display().to_string()),
            ("Dir::State::status", status.display().to_string()),
            ("Dir::Cache", state.join("cache").display().to_string()),
            ("APT::Architecture", names.package.to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::Retries", "2".to_owned()),
            ("Debug::NoLocking", "1".to_owned()),
        ];
        let options = settings.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]).collect();
        Ok(Self { options })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options);
        command
    }

    /// `package` and all that it depends on.
    fn needed_by(&self, package: &str) -> Result<Vec<String>> {
        let kinds = ["pre-depends", "recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let without = kinds.iter().map(|kind| format!("--no-{kind}"));
        let tree = output(
            Command::new("apt-cache").args(&self.options).args(["depends", "--recurse"]).args(without).arg(package),
        )?;
        Ok(packages_in(&tree))
    }
}

/// Package names in what `apt-cache depends` prints: its lines that are not indented, without virtual and foreign
/// packages.
fn packages_in(tree: &str) -> Vec<String> {
    let mut names: Vec<String> = tree
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()) && !line.contains(':'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_found_in_both_kinds_of_sources() {
        let stanza = "Types: deb\n# http://old.example/debian\nURIs: https://mirror.example/debian-security\n\
        URIs: https://mirror.example/debian/\n";
        assert_eq!(archive_in(stanza), Some("https://mirror.example/debian/"));
        assert_eq!(
            archive_in("deb [arch=amd64] http://mirror.example/debian bookworm main"),
            Some("http://mirror.example/debian")
        );
        assert_eq!(archive_in("deb http://mirror.example/ubuntu noble main"), None);
    }

    #[test]
    fn only_real_packages_of_this_architecture_are_downloaded() {
        let tree = "libstd-rust-dev\n  Depends: libc6\n  Depends: <virtual>\n<virtual>\nlibc6\nlibc6:i386\nlibc6\n";
        assert_eq!(packages_in(tree), ["libc6", "libstd-rust-dev"]);
    }
}
