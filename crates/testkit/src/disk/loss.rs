//! The choices of a power loss: which of the unsynced changes survive, and in which form.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many of the unsynced changes a [`power_cut`](super::SimDisk::power_cut) undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them.
    Everything,
    /// None of them.
    Nothing,
    /// A random choice from this seed. For each file it is one of: all changes kept, all lost, the earliest
    /// kept, the latest kept, all torn, or a mixture.
    Random(u64),
}

/// Whether one change survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Whole,
    Torn,
    Lost,
}

/// The length of the file after a torn write that made it longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthFate {
    /// The file ends with the last sector that survived.
    Data,
    /// The file has its new length, with zeros where no sector survived.
    New,
    /// The file has its old length. Sectors beyond it are lost.
    Old,
}

/// One power loss, as the source of its random choices.
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

    /// Draws the fates of `count` changes, in their order.
    pub(super) fn fates(&mut self, count: usize) -> Vec<Fate> {
        match self.loss {
            Loss::Everything => vec![Fate::Lost; count],
            Loss::Nothing => vec![Fate::Whole; count],
            Loss::Random(_) => self.random_fates(count),
        }
    }

    fn random_fates(&mut self, count: usize) -> Vec<Fate> {
        // With independent fates alone, a case such as "all but the first survive" would occur once in
        // 3^count draws. Such cases find most faults, so draw them on purpose.
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

    /// One fate before a random point, another one after it, and the change at the point torn.
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
