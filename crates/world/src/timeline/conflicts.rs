//! Conflicts: checks that commits were allowed, and that refusals have a cause.

use super::{Held, Inner, Timeline, this_task};
use fluxmap_shuttle::ReadPoint;
use fluxmap_testkit::op::Scan;
use std::collections::BTreeMap;

/// The end of the range of commits that a transaction is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// The commits before the transaction's own commit, which has this timestamp.
    Commit(u64),
    /// All commits so far.
    Now,
}

/// A change that forbids a commit, or that explains a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) key: String,
    pub(crate) at: u64,
}

impl Timeline {
    /// Returns a key that a transaction at `point` has read and that has changed since: by a write of
    /// another transaction, by an eviction, or by an expiry that a reader has seen.
    pub(crate) fn clash(&self, point: ReadPoint, until: Until, noted: &[Scan<String>]) -> Option<Clash> {
        let inner = self.inner();
        let from = (point.timestamp - inner.first) as usize;
        let to = inner.end(until);
        let is_noted = |key: &str| noted.iter().any(|scan| scan.contains(&key.to_owned()));
        if let Some(clash) = inner.changed(point, until, |key, _| is_noted(key)) {
            return Some(clash);
        }
        // Without a changing commit, a reader may have read the state at a time at which the key had
        // expired.
        let seen = inner.times[..=to].iter().max().copied().unwrap_or(0);
        let base = &inner.states[from];
        let expired = |held: &Held| held.expires > point.time && held.expires <= seen;
        let gone = base.iter().find(|(key, held)| expired(held) && is_noted(key));
        gone.map(|(key, _)| Clash { key: key.clone(), at: point.timestamp })
    }

    /// Returns whether any of the keys that were read could have expired since `point`.
    pub(crate) fn could_expire(&self, point: ReadPoint, noted: &[Scan<String>]) -> bool {
        let inner = self.inner();
        let base = &inner.states[(point.timestamp - inner.first) as usize];
        base.iter()
            .any(|(key, held)| held.expires > point.time && noted.iter().any(|scan| scan.contains(key)))
    }

    /// Returns whether a commit since `point` has changed one of these keys, even if it only removed a
    /// key that had expired before. Once a snapshot has become too old, the versions that would show the
    /// difference may be gone.
    pub(crate) fn is_touched(&self, point: ReadPoint, mut noted: impl FnMut(&String) -> bool) -> bool {
        let inner = self.inner();
        let from = (point.timestamp - inner.first) as usize;
        inner.commits[from..].iter().any(|commit| commit.changes.keys().any(&mut noted))
    }

    /// Returns one of these keys that another transaction has written since `point`: the first committer
    /// wins. The removal of an expired key may or may not count as a write: an expiry is no commit, and
    /// the removal may be part of the very commit that is checked.
    pub(crate) fn overtaken(
        &self,
        point: ReadPoint,
        until: Until,
        mut written: impl FnMut(&str) -> bool,
    ) -> Option<Clash> {
        let inner = self.inner();
        let expires =
            |key: &str| inner.states.iter().any(|state| state.get(key).is_some_and(|held| held.expires != 0));
        let judged = |key: &str, held: &Option<Held>| match until {
            Until::Now => true,
            Until::Commit(_) => held.is_some() || !expires(key),
        };
        inner.changed(point, until, |key, held| judged(key, held) && written(key))
    }

    /// Returns a key for which `asked` holds and which another task has changed in a commit that began
    /// after this operation. If nothing is evicted, removals count too, unless the key had an expiry
    /// time.
    pub(crate) fn changed_by_others(
        &self,
        operation: u64,
        evictions: bool,
        asked: impl Fn(&String) -> bool,
    ) -> Option<Clash> {
        let task = this_task();
        let inner = self.inner();
        let commits = inner.commits.iter().zip(&inner.states).zip(inner.first + 1..);
        for ((commit, before), at) in commits {
            let is_asked_for = |key: &str, held: &Option<Held>| {
                held.is_some() || !evictions && before.get(key).is_some_and(|held| held.expires == 0)
            };
            let mut changes = commit.changes.iter();
            if commit.task != task
                && commit.operation > operation
                && let Some((key, _)) = changes.find(|(key, held)| is_asked_for(key, held) && asked(key))
            {
                return Some(Clash { key: key.clone(), at });
            }
        }
        None
    }
}

impl Inner {
    /// Returns the number of commits before `until`.
    fn end(&self, until: Until) -> usize {
        match until {
            Until::Now => self.commits.len(),
            Until::Commit(timestamp) => (timestamp - 1 - self.first) as usize,
        }
    }

    /// Returns a key for which `asked` holds and which has changed since `point`. The removal of a key
    /// that had expired at `point` is no change.
    fn changed(
        &self,
        point: ReadPoint,
        until: Until,
        mut asked: impl FnMut(&str, &Option<Held>) -> bool,
    ) -> Option<Clash> {
        let (from, to) = ((point.timestamp - self.first) as usize, self.end(until));
        let base = &self.states[from];
        let had_expired =
            |key: &str| base.get(key).is_some_and(|held| held.expires != 0 && held.expires <= point.time);
        let clashes = |key: &str, held: &Option<Held>| held.is_some() || !had_expired(key);
        let commits = self.commits.iter().enumerate().take(to).skip(from);
        let changes = commits
            .flat_map(|(index, commit)| commit.changes.iter().map(move |(key, held)| (key, (index, held))));
        let clash = match until {
            Until::Commit(_) => {
                let newest: BTreeMap<_, _> = changes.collect();
                newest.into_iter().find(|(key, (_, held))| clashes(key, held) && asked(key, held))
            }
            // Look at all changes, and not only at the last of each key: the refusal may rest on a value
            // that a later commit has removed.
            Until::Now => changes.into_iter().find(|(key, (_, held))| clashes(key, held) && asked(key, held)),
        };
        clash.map(|(key, (index, _))| Clash { key: key.clone(), at: self.first + index as u64 + 1 })
    }
}
