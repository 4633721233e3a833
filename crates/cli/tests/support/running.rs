//! A `trilby` or `daprd` of the tests, in a folder of its own, with whatever arguments.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder to run in.
pub struct Site {
    pub folder: TempDir,
}

/// A process. Killed when dropped.
pub struct Running {
    log: PathBuf,
    child: Child,
}

impl Site {
    /// A folder with files; a path in a name makes folders.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let site = Self { folder: TempDir::new().expect("a temporary folder") };
        for (name, text) in files {
            site.write(name, text);
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    /// Starts `trilby` with arguments that are separated by spaces.
    pub fn trilby(&self, line: &str) -> Running {
        self.run(env!("CARGO_BIN_EXE_trilby"), line, &[])
    }

    pub fn daprd(&self, line: &str) -> Running {
        self.run(env!("CARGO_BIN_EXE_daprd"), line, &[])
    }

    pub fn run(&self, program: &str, line: &str, env: &[(&str, &str)]) -> Running {
        let words: Vec<_> = line.split_whitespace().collect();
        self.run_words(program, &words, env)
    }

    pub fn run_words(&self, program: &str, words: &[&str], env: &[(&str, &str)]) -> Running {
        let log = self.path("log");
        let out = File::create(&log).expect("a file");
        let child = Command::new(program)
            .args(words)
            .current_dir(self.folder.path())
            // Compiled code is shared between tests, and not with the user.
            .env("TRILBY_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file"))
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        Running { log, child }
    }
}

impl Running {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Waits until a text is in the log, and returns the line.
    pub async fn logged(&mut self, text: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended without {text:?}; its log: {}", self.log());
            assert!(started.elapsed() < PATIENCE, "nothing said {text:?}; the log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it did not end; its log: {}", self.log())).expect("a child").code()
    }

    /// Waits until it ends with an error, and returns what it said.
    pub async fn failed(mut self) -> String {
        let code = self.ended().await;
        assert_eq!(code, Some(1), "the log: {}", self.log());
        self.log()
    }

    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().await.expect("kill");
        assert!(status.success());
    }

    /// Asks it to end, waits, and returns its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Ends it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child");
    }
}
