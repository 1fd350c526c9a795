//! `fluxmap verify`: checks whether a database is sound.

use std::path::PathBuf;

use clap::Args;
use fluxmap::PersistenceError;
use fluxmap::inspect::{self, Summary};
use serde_json::{Value, json};

use super::{damage_json, identity_json};
use crate::Verdict;
use crate::durability::torn_tail_json;
use crate::output::{Output, counted, thousands};
use crate::progress::{bytes_bar, show};

/// The options of `fluxmap verify`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 sound, 1 damaged or unreadable, 3 in use.")]
pub(crate) struct VerifyArgs {
    /// The directory of the database.
    dir: PathBuf,

    /// Go on after the first damage, and list all damage.
    #[arg(long)]
    all: bool,

    /// Print one JSON object, and no progress.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads everything that opening the database would read. The verdict is bad if the database is damaged.
///
/// # Errors
///
/// If there is no database, it is in use, or the system refuses to read it.
pub(crate) fn verify(args: &VerifyArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    let bar = bytes_bar("checking", args.json);
    let verified = inspect::verify(&args.dir, |done, total| show(&bar, done, total));
    bar.finish_and_clear();
    let error = match verified {
        Ok(summary) => {
            out.answer(sound(&summary), &sound_json(&summary))?;
            out.flush()?;
            return Ok(Verdict::Good);
        }
        Err(error) if is_damage(&error) => error,
        Err(error) => return Err(error.into()),
    };
    let mut report = damaged_json(&error);
    if !args.json {
        out.line(format_args!("damaged: {error}"))?;
    }
    // `verify` stops at the first damage. Search all files again to list the rest.
    if args.all {
        let bar = bytes_bar("searching", args.json);
        let found = inspect::find_damage(&args.dir, |done, total| show(&bar, done, total))?;
        bar.finish_and_clear();
        let missing = found.missing.iter().map(|commits| [*commits.start(), *commits.end()]);
        report["damage"] = found.damage.iter().map(damage_json).collect();
        report["missing_commits"] = missing.map(|commits| json!(commits)).collect();
        if !args.json {
            list(&found, out)?;
        }
    }
    if args.json {
        out.object(&report)?;
    }
    out.flush()?;
    Ok(Verdict::Bad)
}

/// Writes a line for each place of damage and each range of missing commits.
pub(super) fn list(found: &inspect::Salvage, out: &mut Output) -> std::io::Result<()> {
    for damage in &found.damage {
        out.line(damage)?;
    }
    for commits in &found.missing {
        let (first, last) = (thousands(*commits.start()), thousands(*commits.end()));
        out.line(format_args!("commits {first} to {last} are missing"))?;
    }
    Ok(())
}

/// Whether `error` means that the files are damaged, and not that they cannot be read now.
fn is_damage(error: &PersistenceError) -> bool {
    !matches!(
        error,
        PersistenceError::Locked { .. }
            | PersistenceError::NoDatabase { .. }
            | PersistenceError::UnsupportedFormat { .. }
            | PersistenceError::Io { .. }
    )
}

fn sound(summary: &Summary) -> String {
    let mut text = format!(
        "sound: {} in the checkpoint after commit {}, {} in the log after it",
        counted(summary.checkpoint_pairs, "pair"),
        thousands(summary.checkpoint_commit),
        counted(summary.log_commits, "commit"),
    );
    if let Some(torn) = &summary.torn_tail {
        text.push_str(&format!(
            "\nthe log ends in a torn write, in {} at offset {}: the result of a power loss, or damage to the last write; opening the database cuts it off",
            torn.path.display(),
            torn.offset,
        ));
    }
    text
}

fn sound_json(summary: &Summary) -> Value {
    json!({
        "sound": true,
        "identity": identity_json(&summary.identity),
        "checkpoint_commit": summary.checkpoint_commit,
        "checkpoint_pairs": summary.checkpoint_pairs,
        "checkpoint_bytes": summary.checkpoint_bytes,
        "log_commits": summary.log_commits,
        "log_bytes": summary.log_bytes,
        "last_commit": summary.last_commit,
        "torn_tail": torn_tail_json(summary.torn_tail.as_ref()),
    })
}

fn damaged_json(error: &PersistenceError) -> Value {
    let (file, offset) = match error {
        PersistenceError::Damaged { path, offset, .. } => (Some(path), Some(offset)),
        PersistenceError::Missing { path, .. } | PersistenceError::Mismatch { path, .. } => {
            (Some(path), None)
        }
        _ => (None, None),
    };
    json!({
        "sound": false,
        "error": error.to_string(),
        "file": file.map(|file| file.display().to_string()),
        "offset": offset,
    })
}
