//! Deaths and openings: what must have survived (T4).

use super::{Held, Inner, State, Timeline};
use crate::disk::Faults;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// In what a recovered state may differ from the one that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leeway {
    /// Keys may have no room any more.
    pub(crate) has_limit: bool,
    /// Whether keys may go at any time.
    pub(crate) keys_go: bool,
    /// A policy may give keys without a time of their own one, in memory first, and in the files
    /// with the next checkpoint.
    pub(crate) gives_lives: bool,
    /// The latest time of day there has been.
    pub(crate) now: u64,
}

impl Timeline {
    /// The database has been opened, and says that the last commit is this one. Checks what it
    /// holds (T4): all of that state, or a part if it has less room, or it is later, now.
    pub(crate) fn opened(&self, recovered: u64, leeway: Leeway) -> Result<(), String> {
        let mut inner = self.inner();
        let last = inner.last();
        let promised = inner.promised.saturating_sub(inner.slack).max(inner.synced);
        if recovered < promised || recovered > last && !inner.is_vague {
            return Err(format!(
                "commit {recovered} was recovered as the last; {promised} was promised, {last} the newest"
            ));
        }
        let early = std::mem::take(&mut inner.early);
        let (replayed, later): (Vec<_>, Vec<_>) =
            early.into_iter().partition(|(timestamp, ..)| *timestamp <= recovered);
        let mut state = State::new();
        for (_, _, key, held) in replayed {
            match held {
                Some(held) => state.insert(key, held),
                None => state.remove(&key),
            };
        }
        // Where an opening that failed has removed keys, it began with one of these.
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
                "commit {recovered} was recovered as the last, after which {:?} was there; {state:?} was recovered",
                inner.expected(latest)
            ));
        }
        *inner = Inner { hidden, keys_go: leeway.keys_go, ..Inner::beginning(recovered, state) };
        for (timestamp, task, key, held) in later {
            inner.publish(timestamp, task, &key, held, leeway.now)?;
        }
        Ok(())
    }

    /// The account of the next life, after a death that may take so many of the commits that
    /// were acknowledged or shown and not synced.
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

    /// It was closed: all that was published must be there when it is opened again.
    pub(crate) fn closed(&self) {
        let mut inner = self.inner();
        inner.promised = inner.last();
        inner.synced = inner.last();
    }
}

impl Inner {
    /// The keys in the files after a commit, each with the values that it may have.
    fn expected(&self, timestamp: u64) -> BTreeMap<String, Vec<Held>> {
        let index = ((timestamp - self.first) as usize).min(self.commits.len());
        let is_written =
            |key: &String| self.commits[..index].iter().any(|commit| commit.changes.contains_key(key));
        let hidden = self.hidden.iter().filter(|(key, _)| !is_written(key));
        let hidden = hidden.map(|(key, held)| (key.clone(), held.clone()));
        let shown = self.states[index].iter().map(|(key, held)| (key.clone(), vec![*held]));
        shown.chain(hidden).collect()
    }

    /// Whether `state` may be recovered from files that hold `expected`.
    fn explains(&self, expected: &BTreeMap<String, Vec<Held>>, state: &State, leeway: Leeway) -> bool {
        let Leeway { has_limit, gives_lives, now, .. } = leeway;
        let is_same = |held: &Held, before: &Held| {
            held.id == before.id && (held.expires == before.expires || gives_lives)
        };
        let is_part = state.iter().all(|(key, held)| {
            expected.get(key).is_some_and(|before| before.iter().any(|before| is_same(held, before)))
        });
        // A checkpoint leaves out what had expired when it was begun.
        let may_miss = |(key, held): (&String, &Vec<Held>)| {
            // A life that was given when it was opened may have ended before a checkpoint.
            let has_gone = has_limit || gives_lives || self.hidden.contains_key(key);
            let may_expire = held.iter().any(|held| held.expires != 0 && held.expires <= now);
            has_gone || state.contains_key(key) || may_expire
        };
        is_part && (self.is_vague || expected.iter().all(may_miss))
    }
}

#[cfg(test)]
mod tests;
