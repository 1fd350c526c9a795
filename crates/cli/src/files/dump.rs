//! `fluxmap dump`: prints the contents of a database.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use fluxmap::inspect::{self, Image, Operation, Pair, Record};
use serde_json::json;

use super::loose::{ToJson, converters};
use crate::Verdict;
use crate::output::{Output, note};
use crate::progress::{bytes_bar, show};

/// The options of `fluxmap dump`.
#[derive(Debug, Args)]
#[command(
    after_help = "Pairs are printed as JSON, one object per line: first the pairs of the checkpoint in the order of \
    the keys, then the pairs written since in the order of the commits. If only the program's own \
    Rust types can decode the pairs (postcard with other than common types), the headers are printed \
    instead, as with --headers."
)]
pub(crate) struct DumpArgs {
    /// The directory of the database.
    dir: PathBuf,

    /// Print a line for each pair of the checkpoint and each operation of the log, in order: file,
    /// offset, commit, kind, and the sizes of the key and the value.
    #[arg(long)]
    headers: bool,

    /// Print the headers as JSON, too, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints the pairs, or with `--headers` the position and size of each.
///
/// # Errors
///
/// If the database is damaged or in use, or the answer cannot be written.
pub(crate) fn dump(args: &DumpArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    if args.headers {
        return headers(args, out);
    }
    let bar = bytes_bar("reading", args.json);
    let image = Image::load(&args.dir, |done, total| show(&bar, done, total))?;
    bar.finish_and_clear();
    let identity = image.identity();
    let Some((key, value)) = converters(&identity) else {
        note(format_args!(
            "{} -> {} in {} can be decoded only with its Rust types; printing the headers instead",
            identity.key_type, identity.value_type, identity.codec
        ));
        drop(image);
        return headers(args, out);
    };
    pairs(&image, &args.dir, key, value, out)?;
    out.flush()?;
    Ok(Verdict::Good)
}

/// Prints the pairs in the order of the files. Nothing is sorted, so that a large database needs no
/// further memory.
fn pairs(
    image: &Image,
    dir: &Path,
    to_key: ToJson,
    to_value: ToJson,
    out: &mut Output,
) -> anyhow::Result<()> {
    // Add this context to decoding errors only: an output that cannot be written is no fault of the
    // database.
    let unreadable = || format!("cannot decode the pairs in {}; use --headers", dir.display());
    let mut line = |pair: Pair<'_>| -> anyhow::Result<()> {
        let key = to_key(pair.key).with_context(unreadable)?;
        let value = to_value(pair.value).with_context(unreadable)?;
        let mut shown = json!({ "key": key, "value": value });
        if let Some(expires) = pair.expires {
            shown["expires_ms"] = json!(expires);
        }
        Ok(out.object(&shown)?)
    };
    let mut failed = None;
    image.visit(|pair| match line(pair) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Prints the position and size of each pair and operation.
fn headers(args: &DumpArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    if !out.json() {
        out.line("file\toffset\tcommit\tkind\tkey bytes\tvalue bytes")?;
    }
    let mut failed = None;
    let shown = inspect::records(&args.dir, |record| match header(&record, out) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    // If the files are damaged, show the records before the damage all the same.
    out.flush()?;
    shown?;
    Ok(Verdict::Good)
}

fn header(record: &Record<'_>, out: &mut Output) -> io::Result<()> {
    let (kind, key, value, expires) = match record.operation {
        Operation::Pair { key, value, expires } => ("pair", key, Some(value.len()), expires),
        Operation::Put { key, value, expires } => ("put", key, Some(value.len()), expires),
        Operation::Delete { key } => ("delete", key, None, None),
    };
    let file = record.path.file_name().unwrap_or_default().to_string_lossy();
    if out.json() {
        return out.object(&json!({
            "file": file,
            "offset": record.offset,
            "commit": record.commit,
            "kind": kind,
            "key_bytes": key.len(),
            "value_bytes": value,
            "expires_ms": expires,
        }));
    }
    let value = value.map_or("-".to_owned(), |bytes| bytes.to_string());
    let (offset, commit) = (record.offset, record.commit);
    out.line(format_args!("{file}\t{offset}\t{commit}\t{kind}\t{}\t{value}", key.len()))
}
