//! The commands that read the files of a database without opening it. They change nothing in its
//! directory.

mod copy;
mod dump;
mod loose;
mod stat;
mod verify;

pub(crate) use copy::{BackupArgs, SalvageArgs, backup, salvage};
pub(crate) use dump::{DumpArgs, dump};
pub(crate) use stat::{StatArgs, stat};
pub(crate) use verify::{VerifyArgs, verify};

use fluxmap::inspect::{Damage, Identity};
use serde_json::{Value, json};

/// The identity of a database, as JSON.
fn identity_json(identity: &Identity) -> Value {
    json!({
        "format_version": identity.format_version,
        "codec": identity.codec.to_string(),
        "schema_version": identity.schema_version,
        "key_type": identity.key_type,
        "value_type": identity.value_type,
        "database": format!("{:016x}", identity.database),
    })
}

/// A place of damage, as JSON.
fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.path.display().to_string(),
        "offset": damage.offset,
        "length": damage.length,
        "why": damage.why,
    })
}
