//! Reads outside of transactions: which states they may have seen.

use super::{State, Timeline};

/// From where on somebody reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) floor: u64,
    /// A view of the stable state, of that one or an earlier one, has had this time.
    pub(crate) time: u64,
}

/// Whether all of that was found in one state, at one time of those.
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
    /// The oldest state that a read may see which begins now.
    pub(crate) fn since(&self) -> Since {
        let inner = self.inner();
        Since { floor: inner.floor, time: inner.seen }
    }

    /// Takes notice that a read outside of transactions has found `found` under a key, begun
    /// when the floor and the time were those of `since`; `now` is the time when it ended.
    pub(crate) fn check_get(
        &self,
        key: &str,
        found: Option<u64>,
        since: Since,
        now: u64,
    ) -> Result<(), String> {
        self.check_many(&[(key.to_owned(), found)], since, now)
    }

    /// The same of several keys, which were read at one moment.
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

    /// Takes notice that a read outside of transactions has shown some state for which `explains`
    /// holds, of those since the floor. Returns them if there is none.
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

    /// Takes notice that a swap has not found `expected` under a key.
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
