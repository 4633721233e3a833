//! The command line of `trilby run`.

use std::path::PathBuf;

use clap::Args;
use trilby::{
    Env, WasmSettings,
    component::properties::duration,
    runtime::{
        configuration::{Directory, Isolation},
        quantity,
    },
};

use super::{
    file,
    plan::{self, App},
    settings::{Own, Shared},
};
use crate::log::{Format, Level, Options as LogOptions};

/// Whose lines those are that belong to no app, when there are several.
const NO_APP: &str = "trilby";
/// Folder of the embedded components.
const EMBEDDED: &str = ".trilby";

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Wasm component to run: a file, or a URL with file, http or https
    #[arg(value_name = "APP.wasm")]
    program: Option<String>,
    /// Dapr's multi-app file, or the folder of a dapr.yaml
    #[arg(long = "run-file", short = 'f', value_name = "FILE", conflicts_with_all = ["program", "command", "Own", "Shared", "WasmFlags"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    shared: Shared,
    /// Log a JSON object a line
    #[arg(long)]
    log_as_json: bool,
    /// Folder for compiled Wasm code; empty for none [default: trilby/compiled in the user's cache folder]
    #[arg(long, value_name = "FOLDER", env = "TRILBY_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Command to run as an ordinary app, after `--`; with a Wasm program: its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    wasm: WasmFlags,
}

/// Limits and grants of a Wasm app.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits and grants of a Wasm app")]
pub struct WasmFlags {
    /// Memory that one instance may have [default: 256Mi]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_memory: Option<u64>,
    /// Longest time that one call may take; 0 for no limit [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = time)]
    call_timeout: Option<std::time::Duration>,
    /// Calls that run at a time, each in an instance of its own [default: 64]
    #[arg(long, value_name = "NUMBER")]
    max_concurrency: Option<u32>,
    /// Whether an instance serves many calls (reuse) or one (request) [default: reuse]
    #[arg(long, value_name = "HOW", value_parser = isolation)]
    isolation: Option<Isolation>,
    /// Host outside that it may call, such as api.example.com or *.example.com:8443; may be repeated
    #[arg(long = "allow-host", value_name = "HOST")]
    allowed_hosts: Vec<String>,
    /// Folder that it may read, as HOST or HOST:GUEST, writable with a :rw behind; may be repeated
    #[arg(long = "dir", value_name = "FOLDER", value_parser = directory)]
    directories: Vec<Directory>,
}

/// Everything that one `trilby run` is to run.
#[derive(Debug)]
pub struct Plan {
    /// Never empty.
    pub apps: Vec<App>,
    /// Where the embedded components keep their files.
    pub embedded: PathBuf,
    pub log: LogOptions,
    /// Arguments for a Wasm program that is run once, in place of an app.
    pub arguments: Vec<String>,
    /// Whether the end of the command is the end of all.
    pub is_single: bool,
    pub warnings: Vec<String>,
}

impl RunArgs {
    /// Reads the file, if it is about one, and checks every app.
    ///
    /// # Errors
    /// A text for people that names what is wrong and the fix.
    pub fn plan(self, env: &Env) -> Result<(Plan, Option<PathBuf>), String> {
        let cache_dir = self.cache_dir.clone();
        let plan = match self.file {
            Some(path) => several(file::read(&path).map_err(|error| error.to_string())?, self.log_as_json, env),
            None => self.one(env),
        };
        Ok((plan?, cache_dir))
    }

    fn one(self, env: &Env) -> Result<Plan, String> {
        let Self { program, mut own, shared, wasm, log_as_json, command, .. } = self;
        let mut arguments = Vec::new();
        match program {
            Some(program) => {
                check_program(&program)?;
                own.app_id = own.app_id.or_else(|| plan::id_of_program(&program));
                own.wasm = Some(program);
                own.wasm_options = wasm.settings();
                arguments = command;
            }
            None => {
                own.app_id = own.app_id.or_else(folder_name);
                own.command = command;
            }
        }
        let warnings = shared.warnings();
        let level = level(shared.log_level.as_deref())?;
        let app = App::new(own, shared, env)?;
        let log = log(level, log_as_json, app.id.clone());
        Ok(Plan { apps: vec![app], embedded: EMBEDDED.into(), log, arguments, is_single: true, warnings })
    }
}

fn several(file: file::File, log_as_json: bool, env: &Env) -> Result<Plan, String> {
    let embedded = file.folder.join(EMBEDDED);
    let mut warnings = Vec::new();
    // There is one log: it has what the most talkative app wants.
    let mut least = None;
    let mut apps = Vec::with_capacity(file.apps.len());
    for (own, shared) in file.apps {
        let level = level(shared.log_level.as_deref())?;
        least = Some(least.map_or(level, |least: Level| least.min(level)));
        warnings.extend(shared.warnings());
        apps.push(App::new(own, shared, env)?);
    }
    warnings.dedup();
    let log = log(least.unwrap_or(Level::Info), log_as_json, NO_APP.to_owned());
    Ok(Plan { apps, embedded, log, arguments: Vec::new(), is_single: false, warnings })
}

fn log(level: Level, as_json: bool, app_id: String) -> LogOptions {
    let format = if as_json { Format::Json } else { Format::Console };
    LogOptions { level, format, file: None, app_id }
}

fn level(text: Option<&str>) -> Result<Level, String> {
    let text = text.unwrap_or("info");
    Level::parse(text).ok_or_else(|| format!("log-level: found {text:?}; use debug, info, warn, error or fatal"))
}

/// Whoever forgets the dashes before a command should hear of them.
fn check_program(program: &str) -> Result<(), String> {
    let is_wasm = program.contains("://") || program.ends_with(".wasm") || program.ends_with(".cwasm");
    if is_wasm || std::path::Path::new(program).is_file() {
        return Ok(());
    }
    Err(format!(
        "{program}: no such file; give a Wasm file, or put a command behind two dashes: trilby run -- {program}"
    ))
}

fn folder_name() -> Option<String> {
    let folder = std::env::current_dir().ok()?;
    Some(folder.file_name()?.to_string_lossy().replace(['.', ' '], "-"))
}

impl WasmFlags {
    /// The same as settings of an app.
    #[must_use]
    pub fn settings(self) -> WasmSettings {
        WasmSettings {
            memory_bytes: self.max_memory,
            call_timeout: self.call_timeout,
            max_concurrency: self.max_concurrency,
            isolation: self.isolation,
            allowed_hosts: self.allowed_hosts,
            directories: self.directories,
            ..WasmSettings::default()
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    quantity::parse(text).ok_or_else(|| "expected a size such as 64Mi".into())
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a duration such as 10s or 1m30s".into())
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "reuse" => Ok(Isolation::Reuse),
        "request" => Ok(Isolation::Request),
        _ => Err("expected reuse or request".into()),
    }
}

fn directory(text: &str) -> Result<Directory, String> {
    let (paths, writable) = text.strip_suffix(":rw").map_or((text, false), |paths| (paths, true));
    let (host, guest) = paths.split_once(':').unwrap_or((paths, paths));
    if host.is_empty() || guest.is_empty() {
        return Err("expected HOST or HOST:GUEST".into());
    }
    Ok(Directory { host: host.to_owned(), guest: guest.to_owned(), writable })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.run.plan(&Env::default()).map(|(plan, _)| plan)
    }

    #[test]
    fn a_wasm_app_is_named_after_its_file() {
        let plan = plan("dir/shop.wasm --app-port 8080 --max-memory 64Mi --allow-host a.b --dir /x:/y:rw -- a b")
            .expect("valid");
        assert_eq!(plan.apps[0].id, "shop");
        assert_eq!(plan.arguments, ["a", "b"]);
        let plan::Program::Wasm { settings, ingress, .. } = &plan.apps[0].program else { panic!("a Wasm app") };
        assert_eq!(ingress.as_ref().map(|address| address.port), Some(8080));
        assert_eq!(
            (settings.memory_bytes, settings.allowed_hosts.as_slice()),
            (Some(64 << 20), &["a.b".to_owned()][..])
        );
        assert_eq!(settings.directories, [Directory { host: "/x".into(), guest: "/y".into(), writable: true }]);
    }

    #[test]
    fn options_have_the_short_names_of_dapr_run() {
        let plan = plan("-a shop -p 9000 -P grpc -H 3601 -G 3602 -d res -d more -c config.yaml -- python3 app.py")
            .expect("valid");
        let app = &plan.apps[0];
        assert_eq!((app.id.as_str(), app.resources.len()), ("shop", 2));
        assert_eq!(app.configuration, Some("config.yaml".into()));
        assert_eq!(app.command.as_ref().expect("one").words, ["python3", "app.py"]);
    }

    #[test]
    fn mistakes_are_answered_with_the_fix() {
        for (line, expect) in [
            (
                "app.py",
                "app.py: no such file; give a Wasm file, or put a command behind two dashes: trilby run -- app.py",
            ),
            ("--log-level loud", "log-level: found \"loud\"; use debug, info, warn, error or fatal"),
            ("-f /no/such.yaml", "/no/such.yaml: no such file; give the multi-app file with -f"),
        ] {
            assert_eq!(plan(line).expect_err(line), expect);
        }
        for (line, part) in [
            ("--max-memory lots a.wasm", "expected a size such as 64Mi"),
            ("--isolation maybe a.wasm", "expected reuse or request"),
            ("--app-prt 1", "--app-port"),
            ("-f x --app-port 1", "cannot be used with"),
            ("--env A", "expected NAME=VALUE"),
        ] {
            let error = plan(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
