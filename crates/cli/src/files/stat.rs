//! `fluxmap stat`: an overview of the files of a database.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use fluxmap::inspect::{self, SegmentStat, SegmentState, Stat};
use serde_json::{Value, json};

use super::identity_json;
use crate::Verdict;
use crate::memory::mebibytes;
use crate::output::{Output, note, thousands};

/// The options of `fluxmap stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// The directory of the database.
    dir: PathBuf,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints the contents of the files' headers. The verdict is bad if a header cannot be read.
///
/// # Errors
///
/// If there is no database, or the answer cannot be written.
pub(crate) fn stat(args: &StatArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    let stat = inspect::stat(&args.dir)?;
    if out.json() {
        out.object(&to_json(&stat))?;
    } else {
        out.line(overview(&stat))?;
        out.line(segments(&stat.segments))?;
        stat.problems.iter().for_each(note);
    }
    out.flush()?;
    Ok(if stat.problems.is_empty() { Verdict::Good } else { Verdict::Bad })
}

fn overview(stat: &Stat) -> Table {
    let mut rows = Vec::new();
    if let Some(identity) = &stat.identity {
        rows.push(("types", format!("{} -> {}", identity.key_type, identity.value_type)));
        rows.push(("codec", identity.codec.to_string()));
        rows.push(("schema version", identity.schema_version.to_string()));
        rows.push(("format version", identity.format_version.to_string()));
        rows.push(("database", format!("{:016x}", identity.database)));
    }
    if let Some(checkpoint) = &stat.checkpoint {
        let pairs = checkpoint.pairs.map_or("unknown".into(), thousands);
        rows.push(("checkpoint after commit", thousands(checkpoint.commit)));
        rows.push(("pairs in the checkpoint", pairs));
        rows.push(("bytes of the checkpoint", thousands(checkpoint.bytes)));
    }
    rows.push(("size", mebibytes(Some(stat.total_bytes))));
    rows.push(("closed", yes_or_no(stat.closed)));
    rows.push(("in use", yes_or_no(stat.in_use)));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    table
}

fn segments(segments: &[SegmentStat]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["segment", "state", "bytes", "used", "commits", "first", "last"]);
    let number = |number: Option<u64>| number.map_or("-".to_owned(), thousands);
    for segment in segments {
        table.add_row([
            segment.number.to_string(),
            state(segment.state).to_owned(),
            thousands(segment.bytes),
            thousands(segment.used_bytes),
            thousands(segment.commits),
            number(segment.first_commit),
            number(segment.last_commit),
        ]);
    }
    // All columns but the state hold numbers.
    for (_, column) in table.column_iter_mut().enumerate().filter(|(place, _)| *place != 1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn to_json(stat: &Stat) -> Value {
    let segments = stat.segments.iter().map(|segment| {
        json!({
            "number": segment.number,
            "state": state(segment.state),
            "bytes": segment.bytes,
            "used_bytes": segment.used_bytes,
            "commits": segment.commits,
            "first_commit": segment.first_commit,
            "last_commit": segment.last_commit,
        })
    });
    let checkpoint = stat.checkpoint.map(|checkpoint| {
        json!({
            "commit": checkpoint.commit,
            "pairs": checkpoint.pairs,
            "bytes": checkpoint.bytes,
            "log_segment": checkpoint.log_segment,
        })
    });
    json!({
        "identity": stat.identity.as_ref().map(identity_json),
        "checkpoint": checkpoint,
        "segments": segments.collect::<Vec<_>>(),
        "draft_bytes": stat.draft_bytes,
        "total_bytes": stat.total_bytes,
        "closed": stat.closed,
        "in_use": stat.in_use,
        "problems": stat.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn state(state: SegmentState) -> &'static str {
    match state {
        SegmentState::NotNeeded => "not needed",
        SegmentState::Full => "full",
        SegmentState::Active => "active",
        SegmentState::Spare => "spare",
        SegmentState::Unreachable => "unreachable",
        SegmentState::Damaged => "damaged",
        _ => "unknown",
    }
}

fn yes_or_no(answer: bool) -> String {
    if answer { "yes" } else { "no" }.to_owned()
}
