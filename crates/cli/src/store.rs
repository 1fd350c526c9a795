//! Databases of records on disk: `fluxmap shell` opens them, and `fluxmap import --db` fills them.
//!
//! Keys are strings and values are JSON, so a program opens such a database as a
//! `Database<String, serde_json::Value>`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, inspect};

use crate::Verdict;
use crate::output::{Output, note};
use crate::record::Record;
use crate::shell::answer;

/// The options of `fluxmap shell`.
#[derive(Debug, Args)]
#[command(
    after_help = "The environment variable FLUXMAP_HISTORY names a file that keeps the history of the prompt."
)]
pub(crate) struct ShellArgs {
    /// The directory of the database.
    dir: PathBuf,

    /// Queries to answer, one per argument: 'get KEY', 'set KEY VALUE', 'count', ... ('help' lists
    /// them). If none is given, queries are read from standard input: at a prompt if it is a terminal.
    #[arg(value_name = "QUERY")]
    queries: Vec<String>,

    /// Create the database if there is none.
    #[arg(long)]
    create: bool,

    /// Print the answers as JSON, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Opens the database and answers queries.
///
/// # Errors
///
/// If there is no database, it cannot be opened, or an answer cannot be written.
pub(crate) async fn run(args: &ShellArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    if !args.create && !inspect::exists(&args.dir)? {
        bail!("there is no database in {}; give --create to make one", args.dir.display());
    }
    let db = open(&args.dir).await?;
    let verdict = answer(db.clone(), &args.queries, out).await?;
    close(db).await?;
    Ok(verdict)
}

/// Opens or creates a database of records.
pub(crate) async fn open(dir: &Path) -> anyhow::Result<Database<String, Record>> {
    let db = Database::builder()
        .durability_full(PersistenceOptions::new(dir.to_owned()))
        // `Record` is serialized as a `serde_json::Value`, so other programs may open the database with
        // that type. Name it in the files instead of `Record`.
        .type_names("String", "Value")
        .build()
        .await
        .with_context(|| format!("cannot open the database in {}", dir.display()))?;
    if let Some(torn) = db.recovery_info().and_then(|info| info.torn_tail.as_ref()) {
        let path = torn.path.display();
        note(format_args!(
            "the log ended in a torn write, which was cut off: {path} at offset {}",
            torn.offset
        ));
    }
    Ok(db)
}

/// Closes the database.
///
/// # Errors
///
/// If the last changes cannot be written to disk.
pub(crate) async fn close(db: Database<String, Record>) -> anyhow::Result<()> {
    db.close().await.context("cannot close the database")
}
