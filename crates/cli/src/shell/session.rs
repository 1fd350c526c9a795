//! Carries out commands on a database. At most one transaction is open at a time.
//!
//! A command outside `begin` … `commit` runs in its own transaction. So all reads and writes go through a
//! [`Transaction`], whether or not the user has opened one.

use std::fmt;
use std::io;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use fluxmap::{Database, FluxError, Savepoint, Transaction};
use serde_json::json;

use super::command::{COMMANDS, Command};
use crate::memory::{mebibytes, resident_bytes};
use crate::output::{Output, counted, thousands};
use crate::record::{Record, one_line};

type Tx = Transaction<String, Record>;
type Entry = (String, Arc<Record>);

/// A database, and the transaction that the user has opened on it, if any.
pub(crate) struct Session {
    db: Database<String, Record>,
    open: Option<Open>,
    list_limit: Option<usize>,
}

/// A transaction with its savepoints, the oldest first.
struct Open {
    transaction: Tx,
    savepoints: Vec<(String, Savepoint)>,
}

/// Whether the session goes on after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another command may follow.
    Continue,
    /// `quit` was asked for.
    Quit,
}

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// The command makes no sense now; nothing has changed.
    Refused(String),
    /// The database refused the command.
    Database(FluxError),
    /// The answer could not be written.
    Output(io::Error),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::Database(error) => write!(f, "{error}"),
            Self::Output(error) => write!(f, "cannot write the answer: {error}"),
        }
    }
}

impl From<FluxError> for QueryError {
    fn from(error: FluxError) -> Self {
        Self::Database(error)
    }
}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Session {
    /// A session without an open transaction. A listing shows at most `list_limit` records if the command
    /// gives no limit.
    pub(crate) fn new(db: Database<String, Record>, list_limit: Option<usize>) -> Self {
        Self { db, open: None, list_limit }
    }

    /// Whether a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Rolls back the open transaction. Returns whether one was open.
    pub(crate) fn abandon(&mut self) -> bool {
        self.open.take().map(|open| open.transaction.rollback()).is_some()
    }

    /// The names of the open transaction's savepoints.
    pub(crate) fn savepoint_names(&self) -> impl Iterator<Item = &str> {
        self.open.iter().flat_map(|open| open.savepoints.iter().map(|(name, _)| name.as_str()))
    }

    /// The first `limit` keys that begin with `prefix`, and the last such key if there are more.
    pub(crate) fn keys_around(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<(Vec<String>, Option<String>), FluxError> {
        self.read(|tx| {
            let mut matches = tx.prefix(prefix)?;
            let keys = matches.by_ref().take(limit).map(|(key, _)| key).collect();
            Ok((keys, matches.next_back().map(|(key, _)| key)))
        })
    }

    /// Carries out one command and writes its answer.
    pub(crate) async fn execute(&mut self, command: Command, out: &mut Output) -> Result<Next, QueryError> {
        match command {
            Command::Get(key) => self.get(&key, out)?,
            Command::Prefix(prefix, limit) => {
                self.read(|tx| self.list(tx.prefix(prefix.as_str())?, limit, out))?;
            }
            Command::Range(from, to, limit) => self.range(&from, &to, limit, out)?,
            Command::Count(prefix) => self.count(prefix.as_deref(), out)?,
            Command::First => show_end("first", self.read(Tx::first)?, out)?,
            Command::Last => show_end("last", self.read(Tx::last)?, out)?,
            Command::Set(key, value) => self.set(key, &value, out).await?,
            Command::Delete(key) => self.delete(&key, out).await?,
            Command::Begin => self.begin(out)?,
            Command::Commit => self.commit(out).await?,
            Command::Rollback => self.rollback(out)?,
            Command::Savepoint(name) => self.savepoint(name, out)?,
            Command::RollbackTo(name) => self.rollback_to(&name, out)?,
            Command::Stats => self.stats(out)?,
            Command::Help => help(out)?,
            Command::Quit => return Ok(Next::Quit),
        }
        Ok(Next::Continue)
    }

    /// Runs `body` in the open transaction, or else in a new one.
    fn read<T, E>(&self, body: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        match &self.open {
            Some(open) => body(&open.transaction),
            None => body(&self.db.begin()),
        }
    }

    /// Runs `body` in the open transaction, or else in a new one, which is then committed.
    async fn write<T>(&self, body: impl FnOnce(&Tx) -> Result<T, FluxError>) -> Result<T, FluxError> {
        if let Some(open) = &self.open {
            return body(&open.transaction);
        }
        let transaction = self.db.begin();
        let answer = body(&transaction)?;
        transaction.commit().await?;
        Ok(answer)
    }

    fn get(&self, key: &str, out: &mut Output) -> Result<(), QueryError> {
        let found = self.read(|tx| tx.get(key))?;
        match found {
            Some(record) if out.json() => {
                out.object(&json!({ "key": key, "found": true, "value": record.to_json() }))?;
            }
            Some(record) => out.line(record)?,
            None => out.answer("(not found)", &json!({ "key": key, "found": false }))?,
        }
        Ok(())
    }

    fn range(&self, from: &str, to: &str, limit: Option<usize>, out: &mut Output) -> Result<(), QueryError> {
        if from > to {
            return Err(QueryError::Refused(format!("the range is empty: {from:?} > {to:?}")));
        }
        self.read(|tx| self.list(tx.range(from..=to)?, limit, out))
    }

    /// Writes one record per line, and at the end how many there were.
    fn list(
        &self,
        mut entries: impl Iterator<Item = Entry>,
        limit: Option<usize>,
        out: &mut Output,
    ) -> Result<(), QueryError> {
        let limit = limit.or(self.list_limit);
        let mut shown = 0_usize;
        // Check the limit before taking an entry: an entry taken beyond the limit would be lost to the
        // check for more entries below.
        while limit.is_none_or(|limit| shown < limit)
            && let Some((key, record)) = entries.next()
        {
            if out.json() {
                out.object(&json!({ "key": key, "value": record.to_json() }))?;
            } else {
                out.line(format_args!("{}\t{record}", one_line(&key)))?;
            }
            shown += 1;
        }
        let more = entries.next().is_some();
        let counted = counted(shown as u64, "record");
        let text = match more {
            true => format!("({counted} shown, there are more: give a larger LIMIT)"),
            false => format!("({counted})"),
        };
        out.answer(text, &json!({ "records": shown, "more": more }))?;
        Ok(())
    }

    fn count(&self, prefix: Option<&str>, out: &mut Output) -> Result<(), QueryError> {
        let (count, object) = match prefix {
            Some(prefix) => {
                let count = self.read(|tx| Ok::<_, FluxError>(tx.prefix(prefix)?.count()))?;
                (count, json!({ "prefix": prefix, "count": count }))
            }
            None => {
                let count = self.read(|tx| tx.count(..))?;
                (count, json!({ "count": count }))
            }
        };
        // Write a bare number, which scripts can use as it is.
        out.answer(count, &object)?;
        Ok(())
    }

    async fn set(&self, key: String, value: &str, out: &mut Output) -> Result<(), QueryError> {
        let stored = key.clone();
        let replaced = self
            .write(|tx| {
                let replaced = tx.contains_key(key.as_str())?;
                tx.insert(key, Record::typed(value))?;
                Ok(replaced)
            })
            .await?;
        let text = if replaced { "replaced" } else { "stored" };
        out.answer(text, &json!({ "set": stored, "replaced": replaced }))?;
        Ok(())
    }

    async fn delete(&self, key: &str, out: &mut Output) -> Result<(), QueryError> {
        let found = self.write(|tx| tx.remove(key)).await?.is_some();
        let text = if found { "removed" } else { "(not found)" };
        out.answer(text, &json!({ "del": key, "found": found }))?;
        Ok(())
    }

    fn begin(&mut self, out: &mut Output) -> Result<(), QueryError> {
        if self.open.is_some() {
            let reason = "a transaction is already open: commit it or roll it back first";
            return Err(QueryError::Refused(reason.to_owned()));
        }
        self.open = Some(Open { transaction: self.db.begin(), savepoints: Vec::new() });
        out.answer("transaction open", &json!({ "transaction": "open" }))?;
        Ok(())
    }

    async fn commit(&mut self, out: &mut Output) -> Result<(), QueryError> {
        let open = self.open.take().ok_or_else(no_transaction)?;
        open.transaction.commit().await?;
        out.answer("committed", &json!({ "transaction": "committed" }))?;
        Ok(())
    }

    fn rollback(&mut self, out: &mut Output) -> Result<(), QueryError> {
        if !self.abandon() {
            return Err(no_transaction());
        }
        out.answer("rolled back", &json!({ "transaction": "rolled back" }))?;
        Ok(())
    }

    fn savepoint(&mut self, name: String, out: &mut Output) -> Result<(), QueryError> {
        let open = self.open.as_mut().ok_or_else(no_transaction)?;
        let savepoint = open.transaction.savepoint()?;
        let text = format!("savepoint {}", one_line(&name));
        let object = json!({ "savepoint": &name });
        // As in SQL, a savepoint hides an older one of the same name.
        open.savepoints.push((name, savepoint));
        out.answer(text, &object)?;
        Ok(())
    }

    fn rollback_to(&mut self, name: &str, out: &mut Output) -> Result<(), QueryError> {
        let open = self.open.as_mut().ok_or_else(no_transaction)?;
        let place = open.savepoints.iter().rposition(|(known, _)| known == name);
        let Some(place) = place else {
            return Err(QueryError::Refused(format!("there is no savepoint {name:?}")));
        };
        open.transaction.rollback_to(&open.savepoints[place].1)?;
        // Rolling back has ended the later savepoints, too.
        open.savepoints.truncate(place + 1);
        out.answer(format!("rolled back to {}", one_line(name)), &json!({ "rolled_back_to": name }))?;
        Ok(())
    }

    fn stats(&self, out: &mut Output) -> Result<(), QueryError> {
        let records = self.read(|tx| tx.count(..))?;
        let info = self.db.memory_info();
        let resident = resident_bytes();
        if out.json() {
            out.object(&json!({
                "records": records,
                "keys_in_index": info.keys,
                "versions": info.versions,
                "keys_to_trim": info.backlog,
                "live_snapshots": info.live_snapshots,
                "resident_bytes": resident,
            }))?;
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.add_row(vec!["records".to_owned(), thousands(records as u64)]);
        table.add_row(vec!["keys in the index".to_owned(), thousands(info.keys)]);
        table.add_row(vec!["versions".to_owned(), thousands(info.versions)]);
        table.add_row(vec!["keys to trim".to_owned(), thousands(info.backlog)]);
        table.add_row(vec!["live snapshots".to_owned(), thousands(info.live_snapshots)]);
        table.add_row(vec!["resident memory".to_owned(), mebibytes(resident)]);
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        out.line(table)?;
        Ok(())
    }
}

fn no_transaction() -> QueryError {
    QueryError::Refused("no transaction is open: begin opens one".to_owned())
}

/// Answers `first` and `last`.
fn show_end(which: &str, entry: Option<Entry>, out: &mut Output) -> Result<(), QueryError> {
    match entry {
        Some((key, record)) if out.json() => {
            let value = record.to_json();
            out.object(&json!({ "which": which, "found": true, "key": key, "value": value }))?;
        }
        Some((key, record)) => out.line(format_args!("{}\t{record}", one_line(&key)))?,
        None => out.answer("(no records)", &json!({ "which": which, "found": false }))?,
    }
    Ok(())
}

fn help(out: &mut Output) -> Result<(), QueryError> {
    for command in &COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        if out.json() {
            out.object(&json!({ "usage": usage.trim_end(), "meaning": command.meaning }))?;
        } else {
            out.line(format_args!("{usage:<20} {}", command.meaning))?;
        }
    }
    if !out.json() {
        out.line("Quote words with spaces: prefix \"GREEK SMALL\". '...' takes \\ and \" literally.")?;
    }
    Ok(())
}
