//! `cargo xtask tidy`: the rules of the house that no compiler checks, over the files of this tree.
//!
//! A rule is a function from the tree to what breaks it. Each is a test as well, so that `cargo test` keeps them.

mod dependencies;
mod documents;
mod source;
mod style;
#[cfg(test)]
mod tests;
mod tree;

use std::{fmt, process::ExitCode};

use crate::{args::Args, process::Result, tidy::tree::Tree, workspace::Workspace};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "tidy",
    usage: "tidy",
    about: "Check the rules of the house that no compiler checks",
    details: "Prints PATH:LINE: [RULE] MESSAGE for each finding; `cargo test -p xtask` checks the same.",
    run: |workspace, args: Args| {
        args.finish_without_trailing()?;
        check(workspace)
    },
};

type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

const RULES: &[Rule] = &[
    ("levels", dependencies::levels_point_down),
    ("forbidden-dependencies", dependencies::none_is_forbidden),
    ("doors", style::doors_name_no_component),
    ("module-docs", style::files_say_what_they_are),
    ("file-length", style::files_are_short),
    ("no-mod-rs", style::no_mod_rs),
    ("no-ignored-tests", style::no_ignored_tests),
    ("no-todo", style::no_todo),
    ("no-printing", style::libraries_do_not_print),
    ("no-exit", style::libraries_do_not_exit),
    ("no-unwrap", style::no_unwrap),
    ("no-message-matching", style::nothing_branches_on_messages),
    ("architecture", documents::architecture_is_short),
];

/// One place where a rule is broken.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    path: String,
    /// From 1; None if the whole file is meant.
    line: Option<usize>,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, message } = self;
        match line {
            Some(line) => write!(f, "{path}:{line}: {message}"),
            None => write!(f, "{path}: {message}"),
        }
    }
}

fn check(workspace: &Workspace) -> Result<ExitCode> {
    let tree = Tree::read(&workspace.root)?;
    let mut broken = 0;
    for (name, rule) in RULES {
        for Finding { path, line, message } in rule(&tree) {
            println!("{}", Finding { path, line, message: format!("[{name}] {message}") });
            broken += 1;
        }
    }
    eprintln!("{} rules, {} files, {broken} findings", RULES.len(), tree.sources.len());
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
