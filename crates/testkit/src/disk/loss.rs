//! What a power loss takes: the choice, for every change that was not synced,
//! whether it survives.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How much of what was not synced a [`power_cut`](super::SimDisk::power_cut) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// None of it.
    Nothing,
    /// Whatever this seed says. Files are treated each in its own way: all kept, all
    /// lost, the earliest kept, the latest kept, all torn, or a mixture.
    Random(u64),
}

/// What becomes of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Whole,
    Torn,
    Lost,
}

/// What becomes of the length when a write that made the file longer is torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthFate {
    /// As far as the last sector that survived.
    Data,
    /// All of it, with zeros where no sector survived.
    New,
    /// It stays, and hides the sectors behind it.
    Old,
}

/// One power loss: the source of all its choices.
#[derive(Debug)]
pub(super) struct Storm {
    loss: Loss,
    rng: StdRng,
}

impl Storm {
    pub(super) fn new(loss: Loss) -> Self {
        let seed = if let Loss::Random(seed) = loss { seed } else { 0 };
        Self { loss, rng: StdRng::seed_from_u64(seed) }
    }

    /// The fates of a number of changes, in their order.
    pub(super) fn fates(&mut self, count: usize) -> Vec<Fate> {
        match self.loss {
            Loss::Everything => vec![Fate::Lost; count],
            Loss::Nothing => vec![Fate::Whole; count],
            Loss::Random(_) => self.random_fates(count),
        }
    }

    fn random_fates(&mut self, count: usize) -> Vec<Fate> {
        // Evenly mixed fates alone would make "all but the first" as rare as one in
        // 3^count, and such are the cases that find faults.
        match self.rng.random_range(0..7) {
            0 => vec![Fate::Lost; count],
            1 => vec![Fate::Whole; count],
            2 => self.split(count, Fate::Whole, Fate::Lost),
            3 => self.split(count, Fate::Lost, Fate::Whole),
            4 => vec![Fate::Torn; count],
            _ => (0..count)
                .map(|_| match self.rng.random_range(0..3) {
                    0 => Fate::Whole,
                    1 => Fate::Torn,
                    _ => Fate::Lost,
                })
                .collect(),
        }
    }

    /// One fate up to some point, another from there on, and the point itself torn.
    fn split(&mut self, count: usize, before: Fate, after: Fate) -> Vec<Fate> {
        let point = self.rng.random_range(0..=count);
        (0..count)
            .map(|n| match n.cmp(&point) {
                std::cmp::Ordering::Less => before,
                std::cmp::Ordering::Equal => Fate::Torn,
                std::cmp::Ordering::Greater => after,
            })
            .collect()
    }

    pub(super) fn coin(&mut self) -> bool {
        self.rng.random()
    }

    pub(super) fn length(&mut self) -> LengthFate {
        match self.rng.random_range(0..4) {
            0 => LengthFate::New,
            1 => LengthFate::Old,
            _ => LengthFate::Data,
        }
    }
}
