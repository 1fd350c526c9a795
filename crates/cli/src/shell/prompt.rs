//! The prompt at a terminal: line editing, history and completion around a [`Session`].
//!
//! Ctrl-C drops the line that is being typed, Ctrl-D ends the session. The history of lines ends with the
//! session, unless `FLUXMAP_HISTORY` names a file to keep it in.

use std::path::PathBuf;

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor, Helper, Highlighter, Hinter, Validator};

use super::completion::complete;
use super::script::{Step, finish, run_line};
use super::session::Session;
use crate::output::{Output, note};

/// Gives the editor access to the session, so that it can complete keys.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct SessionHelper {
    session: Session,
}

impl Completer for SessionHelper {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or(line);
        Ok(complete(&self.session, typed))
    }
}

/// Asks for queries and answers them until the user ends the session.
///
/// # Errors
///
/// If the terminal cannot be read, or standard output cannot be written.
pub(crate) async fn converse(session: Session, out: &mut Output) -> anyhow::Result<()> {
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<SessionHelper, DefaultHistory> =
        Editor::with_config(config).context("cannot use this terminal")?;
    let history = std::env::var_os("FLUXMAP_HISTORY").map(PathBuf::from);
    if let Some(path) = history.as_ref().filter(|path| path.exists())
        && let Err(error) = editor.load_history(path)
    {
        note(format_args!("cannot read the history {}: {error}", path.display()));
    }
    editor.set_helper(Some(SessionHelper { session }));
    note("Type help for the commands, Tab to complete, Ctrl-D to quit.");
    let ended = ask_and_answer(&mut editor, out).await;
    if let Some(helper) = editor.helper_mut() {
        finish(&mut helper.session);
    }
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        note(format_args!("cannot write the history {}: {error}", path.display()));
    }
    ended
}

/// Reads lines and runs them. A line that fails is reported and does not end the session.
async fn ask_and_answer(
    editor: &mut Editor<SessionHelper, DefaultHistory>,
    out: &mut Output,
) -> anyhow::Result<()> {
    loop {
        let in_transaction = editor.helper().is_some_and(|helper| helper.session.in_transaction());
        let prompt = if in_transaction { "fluxmap (in transaction)> " } else { "fluxmap> " };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        // Ignore the error: a query runs even if the history cannot keep its line.
        let _ = editor.add_history_entry(line.as_str());
        let Some(helper) = editor.helper_mut() else { return Ok(()) };
        if let Step::Quit = run_line(&mut helper.session, &line, out).await? {
            return Ok(());
        }
    }
}
