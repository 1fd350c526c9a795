//! The program `fluxmap`: what it accepts on its command line, and its exit codes.
//!
//! Exit codes: see [`EXIT_CODES`]. A reader that closes its end of our output early (`| head`)
//! ends the program quietly with 0.

#![forbid(unsafe_code)]
// Standard output and error may be closed pipes, on which the macros panic: `output` writes.
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

/// What scripts are told.
const EXIT_CODES: &str = "Exit codes:
  0  all went well, and what was looked into is sound
  1  an audit, a query or an import failed, something is damaged, or the system refused something
  2  the command line was wrong
  3  the database is in use: close it, and try again";

/// A bank under load, a store for your records, and the tools to look into databases on disk, on an
/// embedded transactional map.
#[derive(Debug, Parser)]
#[command(name = "fluxmap", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
enum Command {
    /// Transfer money between accounts from many tasks at once, and audit the bank meanwhile.
    Demo(demo::DemoArgs),
    /// Read CSV, TSV, `;`-separated or JSON Lines records, then answer queries about them.
    Import(import::ImportArgs),
    /// Answer queries about a database of records on disk, and change it.
    Shell(store::ShellArgs),
    /// Show what is in the files of a database, in use or not.
    Stat(files::StatArgs),
    /// Check every record and block of a database.
    Verify(files::VerifyArgs),
    /// Print the pairs of a database as JSON, or where each stands and how large it is.
    Dump(files::DumpArgs),
    /// Copy whatever is sound of a damaged database into a new one.
    Salvage(files::SalvageArgs),
    /// Copy a database that is not in use into a new one.
    Backup(files::BackupArgs),
    /// Make transfers until killed.
    #[command(hide = true)]
    CrashWorker(demo::CrashWorkerArgs),
}

impl Command {
    /// Whether answers are to be JSON.
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

/// How a run that could be carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Everything that was asked for holds.
    Good,
    /// An audit failed, a query failed or an import was refused; the reason has been printed.
    Bad,
}

/// An error with its causes, but for those that it tells itself.
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
                // For programs. Whether it can be printed changes nothing any more.
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

/// Runs the chosen command on a runtime of its own.
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
