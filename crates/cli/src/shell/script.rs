//! Runs queries from the arguments of the program, or from a pipe.
//!
//! The first query that fails ends the run, because later queries may depend on it, as a `commit` depends
//! on the changes before it. A transaction left open at the end is rolled back, and a note says so.

use std::io::{self, BufRead};

use anyhow::Context as _;
use serde_json::json;

use super::command;
use super::session::{Next, QueryError, Session};
use crate::Verdict;
use crate::output::{Output, note};

/// Runs each argument as one line, until one fails or asks to quit.
pub(crate) async fn run_arguments(
    session: &mut Session,
    queries: &[String],
    out: &mut Output,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Good;
    for query in queries {
        match run_line(session, query, out).await? {
            Step::Next => {}
            Step::Quit => break,
            Step::Failed => {
                verdict = Verdict::Bad;
                break;
            }
        }
    }
    finish(session);
    Ok(verdict)
}

/// Runs each line of `input` as soon as it has arrived, until one fails or asks to quit.
pub(crate) async fn run_piped(
    session: &mut Session,
    input: impl BufRead,
    out: &mut Output,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Good;
    for (place, line) in input.split(b'\n').enumerate() {
        let line = line.context("cannot read the queries from standard input")?;
        let step = match std::str::from_utf8(&line) {
            Ok(line) => run_line(session, line, out).await?,
            Err(_) => {
                report("", &format!("line {} of the queries is not UTF-8", place + 1), out)?;
                Step::Failed
            }
        };
        match step {
            Step::Next => {}
            Step::Quit => break,
            Step::Failed => {
                note(format_args!("stopped at line {} of the queries", place + 1));
                verdict = Verdict::Bad;
                break;
            }
        }
    }
    finish(session);
    Ok(verdict)
}

/// The next step after a line.
pub(super) enum Step {
    /// Go on with the next line.
    Next,
    /// End the session, because the line asked for it.
    Quit,
    /// The line failed, and the failure has been reported.
    Failed,
}

/// Runs one line and flushes its answer.
pub(super) async fn run_line(session: &mut Session, line: &str, out: &mut Output) -> anyhow::Result<Step> {
    let failure = match command::parse(line) {
        Ok(None) => return Ok(Step::Next),
        Ok(Some(command)) => match session.execute(command, out).await {
            Ok(next) => {
                out.flush()?;
                return Ok(if next == Next::Quit { Step::Quit } else { Step::Next });
            }
            Err(QueryError::Output(error)) => return Err(error.into()),
            Err(error) => error.to_string(),
        },
        Err(message) => message,
    };
    report(line, &failure, out)?;
    Ok(Step::Failed)
}

/// Reports that `line` failed: with an object among the answers if they are JSON, else with a note.
fn report(line: &str, failure: &str, out: &mut Output) -> io::Result<()> {
    if out.json() {
        out.object(&json!({ "error": failure, "query": line }))?;
    } else {
        note(format_args!("error: {failure}"));
    }
    out.flush()
}

/// Rolls back the transaction that the queries left open, if any.
pub(super) fn finish(session: &mut Session) {
    if session.abandon() {
        note("the transaction was left open: rolled back");
    }
}
