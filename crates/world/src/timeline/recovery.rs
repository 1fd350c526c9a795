//! Crashes and openings: checks which commits have survived (T4).

use super::{Held, Inner, State, Timeline};
use crate::disk::Faults;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How a recovered state may differ from the one that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leeway {
    /// Whether keys may be evicted because the memory limit leaves no room for them.
    pub(crate) has_limit: bool,
    /// Whether a memory limit or evictions may remove keys at any time.
    pub(crate) keys_go: bool,
    /// Whether a policy may give an expiry time to keys without one: at first in memory, and in the files
    /// with the next checkpoint.
    pub(crate) gives_lives: bool,
    /// The latest time of day of all lives.
    pub(crate) now: u64,
}

impl Timeline {
    /// Records that the database was opened and reports `recovered` as its last commit. Checks the
    /// recovered pairs (T4): all of that state, or a part of it if there is less room or keys have
    /// expired since.
    pub(crate) fn opened(&self, recovered: u64, leeway: Leeway) -> Result<(), String> {
        let mut inner = self.inner();
        let last = inner.last();
        let promised = inner.promised.saturating_sub(inner.slack).max(inner.synced);
        if recovered < promised || recovered > last && !inner.is_vague {
            return Err(format!(
                "commit {recovered} was recovered as the last; {promised} was promised, {last} is the newest"
            ));
        }
        let early = std::mem::take(&mut inner.early);
        // Recovery has published the commits up to `recovered`. The database has made the others since.
        let (replayed, later): (Vec<_>, Vec<_>) =
            early.into_iter().partition(|(timestamp, ..)| *timestamp <= recovered);
        let mut state = State::new();
        for (_, _, key, held) in replayed {
            match held {
                Some(held) => state.insert(key, held),
                None => state.remove(&key),
            };
        }
        // If an opening that failed has removed keys (`is_vague`), it may have begun with any of these
        // states.
        let latest = recovered.min(last);
        let earliest = if inner.is_vague { promised.max(inner.first).min(latest) } else { latest };
        let mut hidden: BTreeMap<String, Vec<Held>> = BTreeMap::new();
        let mut is_explained = false;
        for base in earliest..=latest {
            let expected = inner.expected(base);
            if !inner.explains(&expected, &state, leeway) {
                continue;
            }
            is_explained = true;
            for (key, held) in expected.into_iter().filter(|(key, _)| !state.contains_key(key)) {
                hidden.entry(key).or_default().extend(held);
            }
        }
        if !is_explained {
            return Err(format!(
                "commit {recovered} was recovered as the last: the state should be {:?}, but is {state:?}",
                inner.expected(latest)
            ));
        }
        *inner = Inner { hidden, keys_go: leeway.keys_go, ..Inner::beginning(recovered, state) };
        for (timestamp, task, key, held) in later {
            inner.publish(timestamp, task, &key, held, leeway.now)?;
        }
        Ok(())
    }

    /// Returns the timeline of the next life. `slack` is the number of commits that the crash may have
    /// lost although they were acknowledged or shown, because they were not synced.
    pub(crate) fn next_life(&self, slack: u64) -> Timeline {
        let inner = self.inner();
        let next = Inner {
            first: inner.first,
            states: inner.states.clone(),
            commits: inner.commits.clone(),
            times: vec![0; inner.states.len()],
            is_opening: true,
            early: Vec::new(),
            floor: inner.floor,
            seen: 0,
            promised: inner.promised,
            synced: inner.synced,
            hidden: inner.hidden.clone(),
            is_vague: inner.is_vague
                || inner.is_opening && inner.early.iter().any(|(.., held)| held.is_none()),
            slack: inner.slack.max(slack),
            operations: 0,
            present: BTreeMap::new(),
            claims: BTreeMap::new(),
            keys_go: false,
        };
        Timeline { inner: Arc::new(Mutex::new(next)), board: self.board.clone(), faults: Faults::default() }
    }

    /// Records that the database was closed or dropped without a failure: the next opening must recover
    /// every published commit.
    pub(crate) fn closed(&self) {
        let mut inner = self.inner();
        inner.promised = inner.last();
        inner.synced = inner.last();
    }
}

impl Inner {
    /// Returns the keys in the files after a commit, each with the values that it may have there.
    fn expected(&self, timestamp: u64) -> BTreeMap<String, Vec<Held>> {
        let index = ((timestamp - self.first) as usize).min(self.commits.len());
        let is_written =
            |key: &String| self.commits[..index].iter().any(|commit| commit.changes.contains_key(key));
        let hidden = self.hidden.iter().filter(|(key, _)| !is_written(key));
        let hidden = hidden.map(|(key, held)| (key.clone(), held.clone()));
        let shown = self.states[index].iter().map(|(key, held)| (key.clone(), vec![*held]));
        shown.chain(hidden).collect()
    }

    /// Returns whether `state` may be recovered from files that hold `expected`.
    fn explains(&self, expected: &BTreeMap<String, Vec<Held>>, state: &State, leeway: Leeway) -> bool {
        let Leeway { has_limit, gives_lives, now, .. } = leeway;
        let is_same = |held: &Held, before: &Held| {
            held.id == before.id && (held.expires == before.expires || gives_lives)
        };
        let is_part = state.iter().all(|(key, held)| {
            expected.get(key).is_some_and(|before| before.iter().any(|before| is_same(held, before)))
        });
        // A checkpoint leaves out keys that had expired when it began.
        let may_miss = |(key, held): (&String, &Vec<Held>)| {
            // A time to live that a policy gave to the key at an opening may have ended before a
            // checkpoint.
            let has_gone = has_limit || gives_lives || self.hidden.contains_key(key);
            let may_expire = held.iter().any(|held| held.expires != 0 && held.expires <= now);
            has_gone || state.contains_key(key) || may_expire
        };
        is_part && (self.is_vague || expected.iter().all(may_miss))
    }
}

#[cfg(test)]
mod tests;
