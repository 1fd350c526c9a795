//! The expiry time of a value, as far as the client that wrote the value can know it.

use std::time::Duration;

/// A range of times, in milliseconds since 1970, in which a value expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    earliest: u64,
    latest: u64,
}

impl Expiry {
    /// The engine also stores 0 for "never".
    pub(crate) const NEVER: Expiry = Expiry::at(0);

    /// Exactly this time; 0 means never.
    pub(crate) const fn at(time: u64) -> Expiry {
        Expiry { earliest: time, latest: time }
    }

    /// The time `life` after a moment from `earliest` to `latest`.
    pub(crate) fn after(life: Duration, earliest: u64, latest: u64) -> Expiry {
        let life = u64::try_from(life.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Expiry { earliest: earliest.saturating_add(life), latest: latest.saturating_add(life) }
    }

    /// Returns whether the engine may have stored this expiry time.
    pub(crate) fn allows(self, expires: u64) -> bool {
        self.earliest <= expires && expires <= self.latest
    }

    /// Returns whether `left` may be the time to live at a moment from `from` to `to`.
    pub(crate) fn leaves(self, left: Option<Duration>, from: u64, to: u64) -> bool {
        let Some(left) = left else { return self == Expiry::NEVER };
        let left = left.as_millis();
        let least = u128::from(self.earliest.saturating_sub(to));
        let most = u128::from(self.latest.saturating_sub(from));
        self != Expiry::NEVER && (least..=most).contains(&left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_begins_in_between_two_looks_at_the_time() {
        let expiry = Expiry::after(Duration::from_micros(9_001), 100, 103);
        let allowed: Vec<u64> = (0..200).filter(|expires| expiry.allows(*expires)).collect();
        assert_eq!(allowed, [110, 111, 112, 113]);
        let left = |millis| Some(Duration::from_millis(millis));
        assert!(expiry.leaves(left(5), 105, 105) && expiry.leaves(left(8), 105, 105));
        assert!(!expiry.leaves(left(4), 105, 105) && !expiry.leaves(left(9), 105, 105));
        assert!(!expiry.leaves(None, 105, 105));
        assert!(Expiry::NEVER.leaves(None, 1, 2) && !Expiry::NEVER.leaves(left(0), 1, 2));
        assert!(Expiry::NEVER.allows(0) && !expiry.allows(0));
    }
}
