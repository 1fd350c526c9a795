//! The program `fluxmap`: its command line and its exit codes.
//!
//! [`EXIT_CODES`] lists the exit codes. If the reader of the output closes its end early (`| head`),
//! the program ends quietly with 0.

#![forbid(unsafe_code)]
// Standard output and standard error may be closed pipes, on which `println!` and `eprintln!` panic.
// Write through `output` instead.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod demo;
mod durability;
mod files;
mod import;
mod memory;
mod output;
mod progress;
mod record;
mod shell;
mod store;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fluxmap::{FluxError, PersistenceError};

use crate::output::{Output, is_broken_pipe, note};

/// The exit codes, as `--help` explains them.
const EXIT_CODES: &str = "Exit codes:
  0  the command succeeded, and any database that it checked is sound
  1  an audit, a query or an import failed, a database is damaged, or the system refused an operation
  2  the command line was wrong
  3  another process has the database open: close it there, and try again";

/// A bank under load, a store for your records, and tools to inspect databases on disk, built on an
/// embedded transactional map.
#[derive(Debug, Parser)]
#[command(name = "fluxmap", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Transfer money between accounts from many tasks at once, and audit the bank meanwhile.
    Demo(demo::DemoArgs),
    /// Read CSV, TSV, `;`-separated or JSON Lines records, then answer queries about them.
    Import(import::ImportArgs),
    /// Answer queries about a database of records on disk, and change it.
    Shell(store::ShellArgs),
    /// Show what the files of a database contain. The database may be in use.
    Stat(files::StatArgs),
    /// Check every record and block of a database.
    Verify(files::VerifyArgs),
    /// Print the pairs of a database as JSON, or the position and size of each.
    Dump(files::DumpArgs),
    /// Copy the undamaged part of a database into a new one.
    Salvage(files::SalvageArgs),
    /// Copy a database that is not in use into a new one.
    Backup(files::BackupArgs),
    /// Make transfers until the crash test kills this process.
    #[command(hide = true)]
    CrashWorker(demo::CrashWorkerArgs),
}

impl Command {
    /// Whether the user asked for JSON answers.
    fn prints_json(&self) -> bool {
        match self {
            Command::Demo(args) => args.json,
            Command::Import(args) => args.json,
            Command::Shell(args) => args.json,
            Command::Stat(args) => args.json,
            Command::Verify(args) => args.json,
            Command::Dump(args) => args.json,
            Command::Salvage(args) => args.json,
            Command::Backup(args) => args.json,
            Command::CrashWorker(_) => false,
        }
    }
}

/// How a run ended that met no error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Every check passed and every query succeeded.
    Good,
    /// An audit failed, a query failed or an import was refused; the reason has been printed.
    Bad,
}

/// The text of an error and of its causes. A cause whose text an outer error repeats is left out.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.command.prints_json();
    match run(cli) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = in_full(&error);
            note(format_args!("fluxmap: {text}"));
            if json {
                // Programs read this object. If it cannot be printed, they still get the exit code.
                let object = serde_json::json!({ "error": text, "in_use": is_in_use(&error) });
                let mut out = output::Output::new(true);
                let _ = out.object(&object).and_then(|()| out.flush());
            }
            if is_in_use(&error) { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether `error` says that a database is open elsewhere.
fn is_in_use(error: &anyhow::Error) -> bool {
    let locked = |error: &PersistenceError| matches!(error, PersistenceError::Locked { .. });
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(FluxError::Persistence(error)) => locked(error),
        _ => cause.downcast_ref().is_some_and(locked),
    })
}

/// Runs the chosen command on its own tokio runtime.
fn run(cli: Cli) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .context("cannot start the task runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(&args, &mut Output::new(args.json)).await,
            Command::Import(args) => import::run(&args, &mut Output::new(args.json)).await,
            Command::Shell(args) => store::run(&args, &mut Output::new(args.json)).await,
            Command::Stat(args) => files::stat(&args, &mut Output::new(args.json)),
            Command::Verify(args) => files::verify(&args, &mut Output::new(args.json)),
            Command::Dump(args) => files::dump(&args, &mut Output::new(args.json)),
            Command::Salvage(args) => files::salvage(&args, &mut Output::new(args.json)),
            Command::Backup(args) => files::backup(&args, &mut Output::new(args.json)),
            Command::CrashWorker(args) => demo::crash_worker(&args).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
