//! The bank on disk: opens it, opens it again after the run, and describes the recovery.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use fluxmap::Database;
use fluxmap::persistence::RecoveryInfo;
use serde_json::{Value, json};

use super::DemoArgs;
use super::bank::{Audit, Bank, sum};
use crate::durability::torn_tail_json;
use crate::output::counted;

/// Opens the bank in `dir`, with at least `args.accounts` accounts.
pub(super) async fn open(args: &DemoArgs, dir: &Path) -> anyhow::Result<Bank> {
    let accounts = database(args, dir).await?;
    Bank::with(accounts, args.accounts).await.with_context(|| dir.display().to_string())
}

async fn database(args: &DemoArgs, dir: &Path) -> anyhow::Result<Database<u64, u64>> {
    let builder = Database::builder().isolation_level(args.isolation.level());
    let builder = args.durability.configure(builder, dir).type_names("Account", "Balance");
    builder.build().await.with_context(|| format!("cannot open the bank in {}", dir.display()))
}

/// Closes the bank, opens it again, and audits it.
pub(super) async fn reopen(args: &DemoArgs, dir: &Path, bank: Arc<Bank>) -> anyhow::Result<Audit> {
    let Some(bank) = Arc::into_inner(bank) else {
        bail!("a task still uses the bank after its end");
    };
    let accounts = bank.database().clone();
    drop(bank);
    accounts.close().await.context("cannot close the bank")?;
    let accounts = database(args, dir).await?;
    let found = sum(&accounts).await.context("the audit after opening it again failed")?;
    accounts.close().await.context("cannot close the bank")?;
    Ok(found)
}

/// The recovery as a line of text.
pub(super) fn describe(info: &RecoveryInfo) -> String {
    if info.created {
        return "a new bank".to_owned();
    }
    let torn = match &info.torn_tail {
        Some(torn) => {
            format!("; a torn end was cut off in {} at offset {}", torn.path.display(), torn.offset)
        }
        None => String::new(),
    };
    format!(
        "recovered {} from the checkpoint and {} from the log in {} ms{torn}",
        counted(info.checkpoint_pairs, "account"),
        counted(info.records, "commit"),
        info.duration.as_millis(),
    )
}

/// The recovery as JSON.
pub(super) fn to_json(info: &RecoveryInfo) -> Value {
    json!({
        "created": info.created,
        "checkpoint_commit": info.checkpoint_commit,
        "checkpoint_pairs": info.checkpoint_pairs,
        "checkpoint_bytes": info.checkpoint_bytes,
        "log_commits": info.records,
        "log_bytes": info.bytes,
        "last_commit": info.last_commit,
        "torn_tail": torn_tail_json(info.torn_tail.as_ref()),
        "seconds": info.duration.as_secs_f64(),
    })
}
