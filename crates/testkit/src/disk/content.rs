//! The bytes of one file: the content that reads see, the content on the medium, and the changes
//! between the two.
//!
//! Invariants:
//!
//! - **C1.** Applying all of `changes` to `base` in order gives `seen`.
//! - **C2.** Durable changes move into `base` only when all of `changes` are durable. Until then they stay
//!   in the list, since a power loss may still undo a doomed change before them.

use super::loss::{Fate, LengthFate, Storm};

/// The bytes that the medium writes in one step. Sectors begin at multiples of this in a file.
pub(super) const SECTOR: usize = 512;

/// The bytes of one file. See the [module](self) for its invariants.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    seen: Vec<u8>,
    base: Vec<u8>,
    changes: Vec<ContentChange>,
}

#[derive(Clone, Debug)]
struct ContentChange {
    effect: Effect,
    standing: Standing,
}

#[derive(Clone, Debug)]
enum Effect {
    /// The file was opened with [`OpenMode::Create`](fluxmap::disk::OpenMode::Create), which empties it.
    Empty,
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not synced yet.
    Pending,
    /// Synced, but still in the list, because there was a doomed change in it (C2).
    Durable,
    /// A sync of the change failed. The system takes the change for written and will not write it
    /// again.
    Doomed,
}

impl Content {
    /// A file whose whole content is on the medium.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { seen: bytes.clone(), base: bytes, changes: Vec::new() }
    }

    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// How many changes a power loss might undo.
    pub(super) fn unsynced(&self) -> usize {
        self.changes.iter().filter(|change| change.standing != Standing::Durable).count()
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(Effect::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub(super) fn empty(&mut self) {
        if !self.seen.is_empty() {
            self.change(Effect::Empty);
        }
    }

    fn change(&mut self, effect: Effect) {
        effect.apply(&mut self.seen);
        self.changes.push(ContentChange { effect, standing: Standing::Pending });
    }

    pub(super) fn sync(&mut self) {
        for change in &mut self.changes {
            if change.standing == Standing::Pending {
                change.standing = Standing::Durable;
            }
        }
        if self.changes.iter().all(|change| change.standing == Standing::Durable) {
            for change in self.changes.drain(..) {
                change.effect.apply(&mut self.base);
            }
        }
    }

    /// A failed sync: dooms the pending changes, as a system does that marks its pages clean though it
    /// could not write them.
    pub(super) fn doom(&mut self) {
        for change in &mut self.changes {
            if change.standing == Standing::Pending {
                change.standing = Standing::Doomed;
            }
        }
    }

    /// Drops the doomed changes from `seen`, as a system does that drops clean pages from its cache and
    /// reads them back from the medium.
    pub(super) fn evict(&mut self) {
        self.changes.retain(|change| change.standing != Standing::Doomed);
        self.seen.clone_from(&self.base);
        for change in &self.changes {
            change.effect.apply(&mut self.seen);
        }
    }

    /// Flips bits of a byte in `seen`, in `base` and in the changes, so that C1 still holds.
    pub(super) fn flip(&mut self, at: usize, mask: u8) {
        self.seen[at] ^= mask;
        if let Some(byte) = self.base.get_mut(at) {
            *byte ^= mask;
        }
        for change in &mut self.changes {
            if let Effect::Write { offset, bytes } = &mut change.effect
                && let Some(byte) = at.checked_sub(*offset).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= mask;
            }
        }
    }

    /// The content after a power loss.
    pub(super) fn after_power_cut(&self, storm: &mut Storm) -> Self {
        let mut fates = storm.fates(self.unsynced()).into_iter();
        let mut bytes = self.base.clone();
        for change in &self.changes {
            let fate = match change.standing {
                Standing::Durable => Fate::Whole,
                Standing::Pending | Standing::Doomed => fates.next().unwrap_or(Fate::Lost),
            };
            match fate {
                Fate::Whole => change.effect.apply(&mut bytes),
                Fate::Lost => {}
                Fate::Torn => change.effect.tear(&mut bytes, storm),
            }
        }
        Self::durable(bytes)
    }
}

impl Effect {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Empty => file.clear(),
            Self::Write { offset, bytes } => overlay(file, *offset, bytes),
        }
    }

    /// Applies a random part of the write: some of its sectors, and the new length or the old one.
    fn tear(&self, file: &mut Vec<u8>, storm: &mut Storm) {
        // Emptying a file is one step, so a torn one has no effect.
        let Self::Write { offset, bytes } = self else { return };
        let (start, end) = (*offset, offset + bytes.len());
        let length = storm.length();
        let room = if length == LengthFate::Old { file.len() } else { end };
        let mut from = start;
        while from < end {
            let to = ((from / SECTOR + 1) * SECTOR).min(end);
            if storm.coin() && from < room {
                overlay(file, from, &bytes[from - start..to.min(room) - start]);
            }
            from = to;
        }
        if length == LengthFate::New && file.len() < end {
            file.resize(end, 0);
        }
    }
}

/// Writes bytes into a file. A gap between the old end and the offset is filled with zeros.
fn overlay(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}
