//! Writes the records of a file into the database, and counts malformed and duplicate records.
//!
//! If one bad record refuses the whole import, the import is a single transaction, so that it can be rolled
//! back. Any other import is written in transactions of [`BATCH`] records, so that uncommitted changes take
//! little memory however large the file is.

use std::io::BufRead;

use clap::ValueEnum;
use fluxmap::{Database, Transaction};

use super::records::{Entry, Malformed, Records};
use crate::record::Record;

/// How many records one transaction writes, if a part of the file may be kept.
const BATCH: u64 = 1_000;

/// How many malformed records are reported one by one.
pub(super) const REPORTED: u64 = 20;

/// The treatment of a record whose key an earlier record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnDuplicate {
    /// The earlier record stays.
    KeepFirst,
    /// The later record replaces the earlier one.
    KeepLast,
    /// The import is refused.
    Error,
}

/// The treatment of malformed and duplicate records.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadOptions {
    /// Refuse everything if one record is malformed.
    pub(super) strict: bool,
    /// The treatment of a record with a repeated key.
    pub(super) on_duplicate: OnDuplicate,
}

/// The result of an import.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Good records.
    pub(super) records: u64,
    /// Distinct keys among the good records.
    pub(super) keys: u64,
    /// Good records whose key an earlier one has.
    pub(super) duplicates: u64,
    /// Line and key of the first duplicate.
    pub(super) first_duplicate: Option<(u64, String)>,
    /// Records that could not be used, and refused duplicates.
    pub(super) malformed: u64,
    /// The first [`REPORTED`] malformed records.
    pub(super) reported: Vec<Malformed>,
    /// Whether the whole import was refused, because of a malformed record or a duplicate.
    pub(super) refused: bool,
}

/// Reads all `records` into `db`. Calls `report` with each of the first [`REPORTED`] malformed records as
/// soon as it is read.
///
/// # Errors
///
/// If the file can no longer be read, or the database refuses a transaction. Batches that were committed
/// before remain in the database.
pub(super) async fn load<R: BufRead>(
    db: &Database<String, Record>,
    records: &mut Records<R>,
    options: LoadOptions,
    mut report: impl FnMut(&Malformed),
) -> anyhow::Result<Summary> {
    let whole = options.strict || options.on_duplicate == OnDuplicate::Error;
    let mut summary = Summary::default();
    let mut batch = db.begin();
    let mut pending = 0;
    while let Some(record) = records.next()? {
        let stored = match record {
            Ok(entry) => store(&batch, entry, options, &mut summary)?,
            Err(malformed) => {
                summary.refused |= options.strict;
                Err(malformed)
            }
        };
        if let Err(malformed) = stored {
            summary.malformed += 1;
            if summary.malformed <= REPORTED {
                report(&malformed);
                summary.reported.push(malformed);
            }
            continue;
        }
        pending += 1;
        // An import that a later record may refuse must stay one transaction, to be rolled back.
        if pending >= BATCH && !whole {
            batch.commit().await?;
            batch = db.begin();
            pending = 0;
        }
    }
    if summary.refused {
        batch.rollback();
    } else {
        batch.commit().await?;
    }
    Ok(summary)
}

/// Writes one record. A record whose key is taken is treated as `options.on_duplicate` says.
fn store(
    batch: &Transaction<String, Record>,
    entry: Entry,
    options: LoadOptions,
    summary: &mut Summary,
) -> anyhow::Result<Result<(), Malformed>> {
    let Entry { line, key, record } = entry;
    let taken = batch.contains_key(key.as_str())?;
    if taken && options.on_duplicate == OnDuplicate::Error {
        summary.refused = true;
        let reason = format!("the key {key:?} belongs to an earlier record");
        return Ok(Err(Malformed { line, reason }));
    }
    summary.records += 1;
    if taken {
        summary.duplicates += 1;
        summary.first_duplicate.get_or_insert_with(|| (line, key.clone()));
    } else {
        summary.keys += 1;
    }
    if !taken || options.on_duplicate == OnDuplicate::KeepLast {
        batch.insert(key, record)?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::import::records::ReadOptions;

    /// Loads more rows than fit into a batch, then a row with a repeated key, then a malformed row.
    async fn load_flawed(options: LoadOptions) -> (Summary, usize) {
        let rows: String = (0..3 * BATCH).map(|number| format!("k{number},v\n")).collect();
        let text = format!("key,value\n{rows}k7,again\nbad\n");
        let db = Database::new_in_memory().await.unwrap();
        let path = Path::new("x.csv");
        let mut records = Records::open(text.as_bytes(), path, &ReadOptions::default()).unwrap();
        let summary = load(&db, &mut records, options, |_| {}).await.unwrap();
        let stored = db.begin().count(..).unwrap();
        (summary, stored)
    }

    #[tokio::test]
    async fn a_refused_import_leaves_the_database_empty() {
        let refusals =
            [(true, OnDuplicate::KeepLast), (false, OnDuplicate::Error), (true, OnDuplicate::Error)];
        for (strict, on_duplicate) in refusals {
            let (summary, stored) = load_flawed(LoadOptions { strict, on_duplicate }).await;
            assert!(summary.refused);
            assert_eq!(stored, 0, "{strict} {on_duplicate:?}");
        }
    }

    #[tokio::test]
    async fn any_other_import_keeps_what_is_good() {
        for on_duplicate in [OnDuplicate::KeepFirst, OnDuplicate::KeepLast] {
            let (summary, stored) = load_flawed(LoadOptions { strict: false, on_duplicate }).await;
            assert!(!summary.refused);
            assert_eq!((summary.records, summary.keys), (3 * BATCH + 1, 3 * BATCH));
            assert_eq!((summary.duplicates, summary.malformed), (1, 1));
            assert_eq!(stored as u64, 3 * BATCH);
        }
    }
}
