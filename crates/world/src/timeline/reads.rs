//! Checks which states a read outside of transactions may have seen.

use super::{State, Timeline};

/// The oldest state, and the earliest time, that a read may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) floor: u64,
    /// A view of this state, or of an earlier stable one, has had this time.
    pub(crate) time: u64,
}

/// Returns whether `state` shows all of `found` at one and the same time from `from` to `to`.
fn is_of_one_moment(state: &State, found: &[(String, Option<u64>)], from: u64, to: u64) -> bool {
    let (mut earliest, mut latest) = (from, to.max(from));
    for (key, found) in found {
        match (state.get(key), found) {
            (None, None) => {}
            (Some(held), Some(id)) if held.id == *id && held.expires == 0 => {}
            (Some(held), Some(id)) if held.id == *id => latest = latest.min(held.expires - 1),
            (Some(held), None) if held.expires != 0 => earliest = earliest.max(held.expires),
            _ => return false,
        }
    }
    earliest <= latest
}

impl Timeline {
    /// Returns the oldest state and the earliest time that a read which begins now may see.
    pub(crate) fn since(&self) -> Since {
        let inner = self.inner();
        Since { floor: inner.floor, time: inner.seen }
    }

    /// Checks that a read outside of transactions may have found `found` under a key. `since` is from
    /// before the read began, and `now` is the time at which it ended.
    pub(crate) fn check_get(
        &self,
        key: &str,
        found: Option<u64>,
        since: Since,
        now: u64,
    ) -> Result<(), String> {
        self.check_many(&[(key.to_owned(), found)], since, now)
    }

    /// Checks the same for several keys, which must have been read in one state and at one time.
    pub(crate) fn check_many(
        &self,
        found: &[(String, Option<u64>)],
        since: Since,
        now: u64,
    ) -> Result<(), String> {
        self.check_state(since.floor, |state| is_of_one_moment(state, found, since.time, now)).map_err(
            |states| {
                let shown = |state: &State| -> Vec<_> {
                    found.iter().map(|(key, _)| state.get(key).copied()).collect()
                };
                let states: Vec<_> = states.iter().map(shown).collect();
                format!(
                    "{found:?} were read between {} and {now}, and from {} on there were {states:?}",
                    since.time, since.floor
                )
            },
        )
    }

    /// Checks that `explains` holds for one of the states since the floor, and records that the first such
    /// state was shown. Returns the states if it holds for none.
    pub(crate) fn check_state(
        &self,
        floor: u64,
        explains: impl FnMut(&State) -> bool,
    ) -> Result<(), Vec<State>> {
        let mut inner = self.inner();
        let from = (floor - inner.first) as usize;
        match inner.states[from..].iter().position(explains) {
            Some(skipped) => {
                let timestamp = floor + skipped as u64;
                inner.show(timestamp);
                Ok(())
            }
            None => Err(inner.states[from..].to_vec()),
        }
    }

    /// Checks that a swap was right not to find `expected` under a key.
    pub(crate) fn check_differs(
        &self,
        key: &str,
        expected: Option<u64>,
        floor: u64,
        now: u64,
    ) -> Result<(), String> {
        self.check_state(floor, |state| match state.get(key) {
            None => expected.is_some(),
            Some(held) => expected != Some(held.id) || held.expires != 0 && held.expires <= now,
        })
        .map_err(|_| format!("{key} was {expected:?} from {floor} on"))
    }
}
