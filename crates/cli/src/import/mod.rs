//! `fluxmap import`: reads a file into a database, which then answers queries.

mod delimited;
mod format;
mod lines;
mod load;
mod records;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fluxmap::Database;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::load::{LoadOptions, OnDuplicate, REPORTED, Summary, load};
use self::records::{ReadOptions, Records};
use crate::Verdict;
use crate::output::{Output, counted, note, thousands};
use crate::record::Record;
use crate::shell::answer;
use crate::store;

/// The options of `fluxmap import`.
#[derive(Debug, Args)]
#[command(
    after_help = "The environment variable FLUXMAP_HISTORY names a file that keeps the history of the prompt."
)]
pub(crate) struct ImportArgs {
    /// The file of records; `-` is standard input.
    file: PathBuf,

    /// Queries to answer, one per argument: 'get KEY', 'prefix "GREEK SMALL" 5', 'count', ... ('help'
    /// lists them). The first query that fails ends the run. If none is given, queries are read from
    /// standard input, at a prompt if it is a terminal; with --db none are read: use 'fluxmap shell'
    /// afterwards.
    #[arg(value_name = "QUERY")]
    queries: Vec<String>,

    /// The key: a column by name or by number from 1, or a field of JSON Lines [default: the
    /// first].
    #[arg(short, long, value_name = "COLUMN")]
    key: Option<String>,

    /// The format of the file.
    #[arg(long, value_enum, default_value_t = FormatChoice::Auto)]
    format: FormatChoice,

    /// The separator of fields: one character, or tab, comma, semicolon, pipe, space [default: guessed
    /// from the first line and the extension].
    #[arg(short, long, value_name = "CHAR", value_parser = format::parse_delimiter)]
    delimiter: Option<u8>,

    /// The first line names the columns. This is the default for all formats but JSON Lines.
    #[arg(long, conflicts_with = "no_header")]
    header: bool,

    /// The first line is a record like the others; columns have numbers only.
    #[arg(long)]
    no_header: bool,

    /// Take `"` as an ordinary character.
    #[arg(long)]
    no_quotes: bool,

    /// Keep the records on disk, in the database in this directory, which is created if there is
    /// none. Each committed batch of a thousand records survives a power loss.
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,

    /// Import nothing, and exit with 1, if any record is malformed.
    #[arg(long)]
    strict: bool,

    /// Treatment of a record whose key an earlier record has.
    #[arg(long, value_enum, default_value_t = OnDuplicate::KeepLast)]
    on_duplicate: OnDuplicate,

    /// Print the summary and the answers as JSON, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatChoice {
    /// Guessed from the extension and the first line.
    Auto,
    /// Delimited: CSV, TSV and their relatives.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// Imports the file, then answers queries.
///
/// # Errors
///
/// If the file cannot be read in the given format, or an answer cannot be written.
pub(crate) async fn run(args: &ImportArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    let from_stdin = args.file.as_os_str() == "-";
    if !from_stdin {
        // Check this first, so that a wrong path does not leave an empty database behind.
        File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    }
    let db = match &args.db {
        Some(dir) => store::open(dir).await?,
        None => Database::new_in_memory().await.context("cannot create the database")?,
    };
    let summary = import(args, from_stdin, &db, out).await?;
    let verdict = if summary.refused {
        Verdict::Bad
    } else if args.queries.is_empty() && (from_stdin || args.db.is_some()) {
        // The records came from standard input, so no queries can; or `fluxmap shell` can answer queries
        // later.
        Verdict::Good
    } else {
        answer(db.clone(), &args.queries, out).await?
    };
    store::close(db).await?;
    Ok(verdict)
}

/// Reads the file into `db` and reports the result.
async fn import(
    args: &ImportArgs,
    from_stdin: bool,
    db: &Database<String, Record>,
    out: &mut Output,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let name = if from_stdin { Path::new("standard input") } else { &args.file };
    let name = name.display();
    let (reader, bar) = open(&args.file, from_stdin).with_context(|| format!("cannot open {name}"))?;
    let read_options = ReadOptions {
        json: match args.format {
            FormatChoice::Auto => None,
            FormatChoice::Csv => Some(false),
            FormatChoice::Jsonl => Some(true),
        },
        delimiter: args.delimiter,
        no_quotes: args.no_quotes,
        no_header: args.no_header,
        key: args.key.clone(),
    };
    let options = LoadOptions { strict: args.strict, on_duplicate: args.on_duplicate };
    let mut records = Records::open(reader, &args.file, &read_options).with_context(|| name.to_string())?;
    let loaded = load(db, &mut records, options, |malformed| {
        let (line, reason) = (malformed.line, &malformed.reason);
        bar.suspend(|| note(format_args!("{name}, line {line}: {reason}")));
    });
    let summary = loaded.await.with_context(|| name.to_string())?;
    bar.finish_and_clear();
    if summary.malformed > REPORTED {
        note(format_args!("... and {} more", thousands(summary.malformed - REPORTED)));
    }
    let report = Report {
        name: name.to_string(),
        kind: records.describe(),
        options,
        summary: &summary,
        took: started.elapsed(),
    };
    if out.json() {
        out.object(&report.to_json())?;
    } else {
        report.note();
    }
    out.flush()?;
    Ok(summary)
}

/// Opens the file. A progress bar counts the bytes read; it is hidden if standard error is not a terminal.
fn open(path: &Path, from_stdin: bool) -> io::Result<(Box<dyn BufRead>, ProgressBar)> {
    let source: Box<dyn Read>;
    let bar;
    if from_stdin {
        source = Box::new(io::stdin());
        bar = ProgressBar::new_spinner();
    } else {
        let file = File::open(path)?;
        let details = file.metadata()?;
        if details.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        // A pipe or a device has no size, so show a spinner instead of a bar.
        bar = if details.is_file() {
            ProgressBar::new(details.len()).with_style(bar_style())
        } else {
            ProgressBar::new_spinner()
        };
        source = Box::new(file);
    }
    if bar.length().is_none() {
        bar.set_style(spinner_style());
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    Ok((Box::new(BufReader::with_capacity(1 << 16, bar.wrap_read(source))), bar))
}

fn bar_style() -> ProgressStyle {
    let template = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn spinner_style() -> ProgressStyle {
    let template = "{spinner} {bytes} read, {bytes_per_sec}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The report on a finished import.
struct Report<'import> {
    name: String,
    kind: String,
    options: LoadOptions,
    summary: &'import Summary,
    took: Duration,
}

impl Report<'_> {
    fn to_json(&self) -> serde_json::Value {
        let summary = self.summary;
        let malformed_lines: Vec<_> = summary
            .reported
            .iter()
            .map(|malformed| json!({ "line": malformed.line, "reason": malformed.reason }))
            .collect();
        json!({
            "file": self.name,
            "kind": self.kind,
            "imported": !summary.refused,
            "records": summary.records,
            "keys": if summary.refused { 0 } else { summary.keys },
            "duplicates": summary.duplicates,
            "malformed": summary.malformed,
            "malformed_lines": malformed_lines,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn note(&self) {
        let summary = self.summary;
        let malformed = format!("{} malformed", thousands(summary.malformed));
        if summary.refused {
            let flaw = match self.options.on_duplicate {
                OnDuplicate::Error => "malformed or duplicate",
                _ => "malformed",
            };
            note(format_args!(
                "{}: refused, nothing was imported: {} {flaw}, {} good",
                self.name,
                counted(summary.malformed, "record"),
                thousands(summary.records),
            ));
            return;
        }
        note(format_args!(
            "{}: {} under {} in {:.2} s; {malformed} ({})",
            self.name,
            counted(summary.records, "record"),
            counted(summary.keys, "key"),
            self.took.as_secs_f64(),
            self.kind,
        ));
        if let Some((line, key)) = &summary.first_duplicate {
            let kept = match self.options.on_duplicate {
                OnDuplicate::KeepFirst => "first",
                OnDuplicate::KeepLast | OnDuplicate::Error => "last",
            };
            note(format_args!(
                "{} with the key of an earlier one, the {kept} of each key is kept; first: {key:?}, line {line}",
                counted(summary.duplicates, "duplicate"),
            ));
        }
    }
}
