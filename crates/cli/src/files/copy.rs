//! `fluxmap backup` and `fluxmap salvage`: copy the pairs of one database into a new one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use fluxmap::inspect::Image;
use serde_json::json;

use super::damage_json;
use super::verify::list;
use crate::Verdict;
use crate::output::{Output, counted, thousands};
use crate::progress::{bytes_bar, count_bar, show};

/// The options of `fluxmap backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory of the database, which must not be in use. A program that has it open can call
    /// `Database::backup_to` instead.
    dir: PathBuf,

    /// The directory of the copy, which is created if there is none.
    out: PathBuf,

    /// Print one JSON object, and no progress.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `fluxmap salvage`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the copy was written (the damage is listed), 1 no copy was written, 3 the database is in use."
)]
pub(crate) struct SalvageArgs {
    /// The directory of the database, which must not be in use.
    dir: PathBuf,

    /// The directory of the copy, which is created if there is none.
    out: PathBuf,

    /// Print one JSON object, and no progress.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Copies a sound database.
///
/// # Errors
///
/// If the database is damaged or in use, or the copy cannot be written.
pub(crate) fn backup(args: &BackupArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    let bar = bytes_bar("reading", args.json);
    let image = Image::load(&args.dir, |done, total| show(&bar, done, total))?;
    bar.finish_and_clear();
    write(&image, &args.out, args.json)?;
    let (pairs, commit) = (image.pair_count(), image.last_commit());
    let to = args.out.display().to_string();
    let text = format!("{} after commit {} were copied to {to}", counted(pairs, "pair"), thousands(commit));
    out.answer(text, &json!({ "pairs": pairs, "last_commit": commit, "to": to }))?;
    out.flush()?;
    Ok(Verdict::Good)
}

/// Copies the undamaged part of a database, and lists the damage.
///
/// # Errors
///
/// If no part of the database can be read, it is in use, or the copy cannot be written.
pub(crate) fn salvage(args: &SalvageArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    let bar = bytes_bar("searching", args.json);
    let (image, report) = Image::salvage(&args.dir, |done, total| show(&bar, done, total))?;
    bar.finish_and_clear();
    write(&image, &args.out, args.json)?;
    let to = args.out.display().to_string();
    if out.json() {
        let missing = report.missing.iter().map(|commits| json!([commits.start(), commits.end()]));
        out.object(&json!({
            "complete": report.is_complete(),
            "pairs": report.pairs,
            "checkpoint_pairs": report.checkpoint_pairs,
            "commits": report.commits,
            "last_commit": report.last_commit,
            "damage": report.damage.iter().map(damage_json).collect::<Vec<_>>(),
            "missing_commits": missing.collect::<Vec<_>>(),
            "to": to,
        }))?;
    } else {
        list(&report, out)?;
        let verdict = if report.is_complete() { "nothing was wrong" } else { "the damage is listed above" };
        out.line(format_args!(
            "{}, out of {} in the checkpoint and {} in the log, were copied to {to}; {verdict}",
            counted(report.pairs, "pair"),
            thousands(report.checkpoint_pairs),
            counted(report.commits, "commit"),
        ))?;
    }
    out.flush()?;
    Ok(Verdict::Good)
}

fn write(image: &Image, to: &Path, json: bool) -> anyhow::Result<()> {
    let bar = count_bar("writing", json);
    let written = image.write_to(to, |progress| show(&bar, progress.pairs, progress.total_pairs));
    bar.finish_and_clear();
    written.with_context(|| format!("cannot write the copy to {}", to.display()))
}
