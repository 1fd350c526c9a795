//! Reports about the contents of a database and the memory that they take.

use super::Committer;
use crate::info::{KeyMetadata, MemoryInfo};
use crate::mem::ledger::{bytes, to_bytes};
use crate::mem::weigher::{bare_entry, bare_version};
use fluxmap_index::{AccessTracking, CurrentEntry, STAMPS};
use std::hash::Hash;
use std::sync::Arc;

impl<K: Ord + Hash + Clone, V> Committer<K, V> {
    /// Returns the metadata of a key.
    pub(crate) fn metadata(&self, pair: &CurrentEntry<'_, K, Arc<V>>) -> KeyMetadata<K> {
        let access = pair.access();
        let age = self.index.generation().wrapping_sub(access.stamp()) % STAMPS;
        let count = u64::from(access.count());
        let value = pair.meta().map_or(0, |meta| u64::from(meta.weight));
        let size = match &self.limit {
            Some((_, weigher)) => to_bytes(u64::from(weigher.key(pair.key())) + value),
            None => (bare_entry::<K>() + bare_version::<V>()) as u64,
        };
        KeyMetadata {
            key: pair.key().clone(),
            last_accessed: u64::from(STAMPS - age),
            access_count: if self.noting == AccessTracking::Magnitude { (1 << count) - 1 } else { count },
            size_bytes: size,
        }
    }

    /// Returns the figures about memory, in bytes and counts.
    pub(crate) fn memory_info(&self) -> MemoryInfo {
        let section = self.section.lock();
        let structure = self.index.structure();
        let (entries, versions) = (self.index.entries() as u64, self.index.versions() as u64);
        let (index_bytes, spare_bytes) = section.ledger.overhead(structure);
        let waiting = bytes(section.writer.waiting());
        let (live_bytes, old_version_bytes) = match &section.ledger.budget {
            Some(budget) => {
                (budget.live_bytes(), waiting.saturating_add(to_bytes(self.index.superseded_weight())))
            }
            None => {
                let live = entries * (bare_entry::<K>() + bare_version::<V>()) as u64;
                (live, waiting + versions.saturating_sub(entries) * bare_version::<V>() as u64)
            }
        };
        let (backlog, evictions) = (section.writer.backlog() as u64, section.ledger.evictions);
        // The rest needs no lock: let commits go on.
        drop(section);
        let log_buffer_bytes = self.durable.as_ref().map_or(0, |durable| durable.log.buffered_bytes());
        let (hits, misses) = self.index.lookups();
        let parts = [live_bytes, index_bytes, spare_bytes, old_version_bytes, log_buffer_bytes];
        MemoryInfo {
            max_bytes: self.limit(),
            current_bytes: live_bytes.saturating_add(index_bytes),
            total_bytes: parts.into_iter().fold(0, u64::saturating_add),
            live_bytes,
            index_bytes,
            spare_bytes,
            old_version_bytes,
            log_buffer_bytes,
            keys: entries,
            versions,
            live_snapshots: self.active.count() as u64,
            oldest_snapshot_age: self
                .active
                .oldest()
                .map(|since| self.host.now().saturating_duration_since(since)),
            backlog,
            evictions,
            hits,
            misses,
        }
    }
}
