//! `cargo xtask`: the chores of this repository, with nothing but the standard library so that it builds in seconds.

#![expect(clippy::disallowed_methods, reason = "a program may read its environment")]

mod args;
mod bench;
mod demo;
mod driver;
mod guests;
mod install;
mod js;
mod process;
mod report;
mod services;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::{env, process::ExitCode};

use crate::{args::Args, process::Result, workspace::Workspace};

/// One subcommand: what the user types, what help says of it, and what runs.
struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    details: &'static str,
    run: fn(&Workspace, Args) -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    demo::COMMAND,
    test::COMMAND,
    guests::COMMAND,
    services::COMMAND,
    services::server::COMMAND,
    tidy::COMMAND,
    bench::COMMAND,
];

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "--help".to_owned());
    let words: Vec<String> = words.collect();
    if matches!(name.as_str(), "-h" | "--help" | "help") {
        println!("{}", overview());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let known: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        eprintln!("error: unknown command `{name}`; known: {}", known.join(", "));
        return ExitCode::from(2);
    };
    if words.iter().take_while(|word| *word != "--").any(|word| word == "-h" || word == "--help") {
        println!("{}\n\nUsage: cargo xtask {}\n\n{}", command.about, command.usage, command.details);
        return ExitCode::SUCCESS;
    }
    match Workspace::find().and_then(|workspace| (command.run)(&workspace, Args::new(words))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn overview() -> String {
    let mut text = "The chores of this repository.\n\nUsage: cargo xtask COMMAND [OPTIONS]\n\nCommands:\n".to_owned();
    for command in COMMANDS {
        text += &format!("  {:<10}{}\n", command.name, command.about);
    }
    text + "\n`cargo xtask COMMAND --help` says more about one.\n\
            CARGO_TARGET_DIR moves what is built; RUSTUP_AUTO_INSTALL=0 keeps rustup from downloading."
}
