//! Queries against a database of records: from arguments, from a pipe or at a prompt.

pub(crate) mod command;
mod completion;
mod prompt;
mod script;
mod session;
pub(crate) mod words;

use std::io::{self, IsTerminal as _};

use fluxmap::Database;

use self::session::Session;
use crate::Verdict;
use crate::output::Output;
use crate::record::Record;

/// How many records a listing at the prompt shows if the command gives no limit.
const PROMPT_LIMIT: usize = 20;

/// Answers `queries`. If there are none, answers queries from standard input: at a prompt if it is a
/// terminal.
///
/// # Errors
///
/// If the queries cannot be read, or an answer cannot be written.
pub(crate) async fn answer(
    db: Database<String, Record>,
    queries: &[String],
    out: &mut Output,
) -> anyhow::Result<Verdict> {
    if !queries.is_empty() {
        script::run_arguments(&mut Session::new(db, None), queries, out).await
    } else if io::stdin().is_terminal() {
        prompt::converse(Session::new(db, Some(PROMPT_LIMIT)), out).await?;
        Ok(Verdict::Good)
    } else {
        script::run_piped(&mut Session::new(db, None), io::stdin().lock(), out).await
    }
}
