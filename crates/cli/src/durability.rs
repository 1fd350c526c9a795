//! The command-line options for keeping a bank on disk.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use fluxmap::db::Buildable;
use fluxmap::persistence::{PersistenceOptions, TornTail};
use fluxmap::{DatabaseBuilder, Key, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

/// The interval between syncs with `--relaxed` if the user gives no limit.
const FLUSH_INTERVAL_MS: u64 = 100;

/// The place where opening cut off a torn log, or would cut it off, as JSON.
pub(crate) fn torn_tail_json(torn: Option<&TornTail>) -> Option<Json> {
    torn.map(|torn| json!({ "file": torn.path.display().to_string(), "offset": torn.offset }))
}

/// The durability of committed transfers, and the size of the log. The command that uses these options
/// must define an argument group `disk`: the arguments that put the bank on disk.
#[derive(Debug, Clone, Args)]
pub(crate) struct DurabilityArgs {
    /// A committed transfer survives a power loss. This is the default.
    #[arg(long, conflicts_with = "relaxed", requires = "disk")]
    full: bool,

    /// A committed transfer survives the death of the process; a power loss may take the newest.
    #[arg(long, requires = "disk")]
    relaxed: bool,

    /// With --relaxed: sync after this many milliseconds [default: 100 if no limit is given].
    #[arg(long, value_name = "MS", requires = "relaxed", value_parser = clap::value_parser!(u64).range(1..))]
    flush_interval: Option<u64>,

    /// With --relaxed: sync after this many commits.
    #[arg(long, value_name = "N", requires = "relaxed", value_parser = clap::value_parser!(u32).range(1..))]
    flush_commits: Option<u32>,

    /// With --relaxed: sync after this many bytes.
    #[arg(long, value_name = "N", requires = "relaxed", value_parser = clap::value_parser!(u64).range(1..))]
    flush_bytes: Option<u64>,

    /// The size of the largest log segments, in KiB.
    #[arg(long, value_name = "KIB", requires = "disk", default_value_t = 16 * 1024, value_parser = clap::value_parser!(u64).range(4..=1 << 20))]
    segment_kib: u64,

    /// Limit the log to the size of this many segments. By default the log grows to twice the size
    /// of the stored pairs, and to at least 8 MiB.
    #[arg(long, value_name = "N", requires = "disk", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    segments: Option<u16>,
}

impl DurabilityArgs {
    /// Configures `builder` to keep the database in `dir`.
    pub(crate) fn configure<K, V>(
        &self,
        builder: DatabaseBuilder<K, V>,
        dir: &Path,
    ) -> DatabaseBuilder<K, V, Buildable>
    where
        K: Key + Serialize + DeserializeOwned,
        V: Value + Serialize + DeserializeOwned,
    {
        let options = PersistenceOptions {
            wal_pool_size: self.segments.map_or(0, usize::from),
            wal_segment_size_bytes: self.segment_kib * 1024,
            ..PersistenceOptions::new(dir.to_owned())
        };
        if !self.relaxed {
            return builder.durability_full(options);
        }
        let builder = builder.durability_relaxed(options);
        let mut builder = match (self.flush_interval, self.flush_commits, self.flush_bytes) {
            (None, Some(commits), _) => builder.flush_after_commits(commits as usize),
            (None, None, Some(bytes)) => builder.flush_after_bytes(bytes),
            (interval, _, _) => {
                builder.flush_interval(Duration::from_millis(interval.unwrap_or(FLUSH_INTERVAL_MS)))
            }
        };
        if let Some(commits) = self.flush_commits {
            builder = builder.flush_after_commits(commits as usize);
        }
        if let Some(bytes) = self.flush_bytes {
            builder = builder.flush_after_bytes(bytes);
        }
        builder
    }

    /// The name of the durability level, as reports show it.
    pub(crate) fn name(&self) -> &'static str {
        if self.relaxed { "relaxed" } else { "full" }
    }

    /// The options as command-line arguments, for a child process.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![if self.relaxed { "--relaxed".into() } else { "--full".into() }];
        let mut option = |name: &str, value: Option<u64>| {
            arguments.extend(value.map(|value| format!("--{name}={value}").into()));
        };
        option("flush-interval", self.flush_interval);
        option("flush-commits", self.flush_commits.map(u64::from));
        option("flush-bytes", self.flush_bytes);
        option("segment-kib", Some(self.segment_kib));
        option("segments", self.segments.map(u64::from));
        arguments
    }
}
