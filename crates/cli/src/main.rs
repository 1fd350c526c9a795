//! The program `fluxmap`: what it accepts on its command line, and its exit codes.
//!
//! Exit codes: 0 all went well; 1 an audit saw a wrong sum, a query failed or an import was
//! refused; 2 the command line was wrong. A reader that closes its end of our output early
//! (`| head`) ends the program quietly with 0.

#![forbid(unsafe_code)]
// Standard output and error may be closed pipes, on which the macros panic: `output` writes.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod demo;
mod import;
mod memory;
mod output;
mod record;
mod shell;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::output::{Output, is_broken_pipe, note};

/// A bank under load, and a store for your records, on an embedded transactional map.
#[derive(Debug, Parser)]
#[command(name = "fluxmap", version, about)]
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
}

/// How a run that could be carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Everything that was asked for holds.
    Good,
    /// An audit failed, a query failed or an import was refused; the reason has been printed.
    Bad,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("fluxmap: {error:#}"));
            ExitCode::FAILURE
        }
    }
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
