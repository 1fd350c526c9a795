//! Checkpoints: all pairs as they were after one commit, in one file.
//!
//! After its header come blocks, each with a checksum of its own, and at the end a
//! block that says how many there were. A checkpoint is written under a draft's name
//! and synced before it replaces the one before, so a file of this name is complete.

use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::sync::random;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, NamedFile};
use crate::wal::format::{
    Fields, FileHeader, FileKind, Identity, Lsn, MAX_COMMIT, Nonsense, Operation, operations,
};
use fluxmap_index::Time;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The header of a block.
///
/// | at | size | |
/// |--:|--:|---|
/// | 0 | 4 | CRC-32C of the file's salt, the rest of the header and the payload |
/// | 4 | 4 | length of the payload |
/// | 8 | 8 | number of the block, from zero |
/// | 16 | 4 | pairs in the block |
/// | 20 | 1 | 1: pairs as format version 1 has them; 2: the end; 3: pairs |
/// | 21 | 3 | zero |
///
/// The payload of a block of pairs are puts, as in a commit in the log. In version 1: for
/// each pair the length of the key (4 bytes), the key, the length of the value (4 bytes),
/// the value. Of the end: the number of pairs in the file (8 bytes).
const BLOCK_HEADER: usize = 24;
const BARE_PAIRS: u8 = 1;
const END: u8 = 2;
const PAIRS: u8 = 3;

/// A block is full when it has this many bytes.
pub(crate) const BLOCK_SIZE: usize = 256 << 10;
/// Bytes between two syncs while a checkpoint is written: small enough not to keep the
/// disk from the log for long.
const SYNC_EVERY: u64 = 4 << 20;

/// Where the pairs of a checkpoint come from.
pub(crate) trait Pairs {
    /// The commit after which they are.
    fn timestamp(&self) -> Lsn;

    /// The time by which it is decided which of them have expired, as far as it has come; 0 if
    /// none can have.
    fn time(&self) -> Time;

    /// Appends about [`BLOCK_SIZE`] bytes of pairs, each as
    /// [`push_operation`](crate::wal::format::push_operation) does, and returns how many;
    /// zero at the end.
    fn fill(&mut self, block: &mut Vec<u8>) -> Result<u32>;
}

/// How far the writing has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) pairs: u64,
    pub(crate) bytes: u64,
}

/// Writes a checkpoint's draft and makes it durable. `go_on` is asked after each block.
pub(crate) fn write_draft(
    directory: &Directory,
    identity: &Identity,
    pairs: &mut dyn Pairs,
    log_segment: u64,
    mut go_on: impl FnMut(Written) -> Result<()>,
) -> Result<Written> {
    let file = directory.open(CHECKPOINT_DRAFT, OpenMode::Create)?;
    let header = FileHeader {
        kind: FileKind::Checkpoint,
        identity: identity.clone(),
        salt: random(),
        number: pairs.timestamp(),
        detail: log_segment,
        time: pairs.time(),
    };
    let mut block = header.encode();
    let mut written = Written::default();
    let mut synced = 0;
    let mut write = |bytes: &[u8], written: &mut Written| {
        file.write_at(bytes, written.bytes)?;
        written.bytes += bytes.len() as u64;
        if written.bytes >= synced + SYNC_EVERY {
            file.sync()?;
            synced = written.bytes;
        }
        Ok(())
    };
    write(&block, &mut written)?;
    let mut number = 0;
    loop {
        block.clear();
        block.resize(BLOCK_HEADER, 0);
        let count = pairs.fill(&mut block)?;
        if count == 0 {
            block.extend(written.pairs.to_le_bytes());
        }
        seal(&mut block, header.salt, number, count, if count == 0 { END } else { PAIRS });
        write(&block, &mut written)?;
        if count == 0 {
            break;
        }
        number += 1;
        written.pairs += u64::from(count);
        go_on(written)?;
    }
    file.sync()?;
    Ok(written)
}

/// Puts the draft in the place of the checkpoint before it.
pub(crate) fn publish_draft(directory: &Directory) -> Result<()> {
    directory.rename(CHECKPOINT_DRAFT, CHECKPOINT)?;
    directory.sync()
}

fn seal(block: &mut [u8], salt: u64, number: u64, pairs: u32, kind: u8) {
    let length = (block.len() - BLOCK_HEADER) as u32;
    block[4..8].copy_from_slice(&length.to_le_bytes());
    block[8..16].copy_from_slice(&number.to_le_bytes());
    block[16..20].copy_from_slice(&pairs.to_le_bytes());
    block[20..24].copy_from_slice(&[kind, 0, 0, 0]);
    let crc = block_crc(salt, &block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

fn block_crc(salt: u64, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), rest)
}

/// A block that is sound by itself, wherever it is.
pub(crate) struct SoundBlock<'b> {
    pub(crate) number: u64,
    pub(crate) is_end: bool,
    is_bare: bool,
    /// In the block; at the end, in the file.
    pub(crate) pairs: u64,
    pub(crate) payload: &'b [u8],
}

/// The length of the end of a checkpoint.
pub(crate) const END_LENGTH: usize = BLOCK_HEADER + 8;

impl<'b> SoundBlock<'b> {
    /// The block at the start of `bytes`, which may go on behind it, if there is a sound
    /// one whose number is at most `highest`.
    pub(crate) fn read(salt: u64, bytes: &'b [u8], highest: u64) -> Option<Self> {
        let mut fields = Fields(bytes.get(..BLOCK_HEADER)?);
        let (crc, length) = (fields.u32()?, fields.u32()? as usize);
        let (number, pairs, kind) = (fields.u64()?, fields.u32()?, fields.u8()?);
        // All of this before the checksum, which takes time where blocks are looked for.
        if number > highest || ![BARE_PAIRS, PAIRS, END].contains(&kind) || fields.take(3)? != [0; 3] {
            return None;
        }
        let block = bytes.get(..BLOCK_HEADER.checked_add(length)?)?;
        if crc != block_crc(salt, &block[4..]) {
            return None;
        }
        let payload = &block[BLOCK_HEADER..];
        let is_end = kind == END;
        let pairs = if is_end { Fields(payload).u64()? } else { u64::from(pairs) };
        Some(SoundBlock { number, is_end, is_bare: kind == BARE_PAIRS, pairs, payload })
    }

    /// How long the block is.
    pub(crate) fn length(&self) -> usize {
        BLOCK_HEADER + self.payload.len()
    }

    /// The encoded pairs; none at the end.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = std::result::Result<Pair<'b>, Nonsense>> + use<'b> {
        let payload = if self.is_end { &[] } else { self.payload };
        Block { offset: 0, is_bare: self.is_bare, payload }.pairs()
    }
}

/// A checkpoint that is being read.
pub(crate) struct Reader {
    file: NamedFile,
    pub(crate) header: FileHeader,
    offset: u64,
    number: u64,
    pairs: u64,
    length: u64,
    buffer: Vec<u8>,
}

/// A block of pairs.
pub(crate) struct Block<'r> {
    pub(crate) offset: u64,
    is_bare: bool,
    payload: &'r [u8],
}

/// An encoded pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'r> {
    pub(crate) key: &'r [u8],
    pub(crate) value: &'r [u8],
    /// Zero if the value does not expire.
    pub(crate) expires: Time,
}

impl Reader {
    /// The checkpoint of a directory, if it has one.
    pub(crate) fn open(directory: &Directory) -> Result<Option<Self>> {
        let Some(file) = directory.find(CHECKPOINT)? else {
            return Ok(None);
        };
        let (header, end) = file.read_header(FileKind::Checkpoint)?;
        let length = file.len()?;
        let offset = end as u64;
        Ok(Some(Reader { file, header, offset, number: 0, pairs: 0, length, buffer: Vec::new() }))
    }

    pub(crate) fn file(&self) -> &NamedFile {
        &self.file
    }

    /// How long the file is.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// How many pairs the file has, as its end says; `None` if there is no sound end.
    pub(crate) fn total_pairs(&self) -> Result<Option<u64>> {
        let mut end = [0; END_LENGTH];
        let filled = self.file.read_at(&mut end, self.length.saturating_sub(END_LENGTH as u64))?;
        let block = SoundBlock::read(self.header.salt, &end[..filled], u64::MAX);
        Ok(block.filter(|block| block.is_end).map(|block| block.pairs))
    }

    /// The next block, checked, or `None` after the last. A checkpoint is sound
    /// only if the last has been reached.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        let start = self.offset;
        let damaged = |file: &NamedFile, what: &str| Err(file.damaged(start, what));
        let mut header = [0; BLOCK_HEADER];
        if self.file.read_at(&mut header, start)? < BLOCK_HEADER {
            return damaged(&self.file, "the file ends where a block should begin");
        }
        let mut fields = Fields(&header);
        let sound = || {
            let (crc, length) = (fields.u32()?, fields.u32()?);
            Some((crc, length as usize, fields.u64()?, fields.u32()?, fields.u8()?))
        };
        let Some((crc, length, number, pairs, kind)) = { sound }() else {
            return damaged(&self.file, "the header of a block is too short");
        };
        if length as u64 > self.length.saturating_sub(start + BLOCK_HEADER as u64) {
            return damaged(&self.file, "a block goes on beyond the end of the file");
        }
        self.buffer.clear();
        self.buffer.extend(&header[4..]);
        self.buffer.resize(BLOCK_HEADER - 4 + length, 0);
        let filled = self.file.read_at(&mut self.buffer[BLOCK_HEADER - 4..], start + BLOCK_HEADER as u64)?;
        if filled < length || crc != block_crc(self.header.salt, &self.buffer) {
            return damaged(&self.file, "the checksum of a block does not match");
        }
        if number != self.number {
            return damaged(&self.file, "a block is not in its place");
        }
        self.offset += (BLOCK_HEADER + length) as u64;
        self.number += 1;
        let payload = &self.buffer[BLOCK_HEADER - 4..];
        match kind {
            PAIRS | BARE_PAIRS => {
                self.pairs += u64::from(pairs);
                Ok(Some(Block { offset: start, is_bare: kind == BARE_PAIRS, payload }))
            }
            END if Fields(payload).u64() != Some(self.pairs) => {
                damaged(&self.file, "the number of pairs is not what the end says")
            }
            END if self.offset != self.length => damaged(&self.file, "something follows the end"),
            END => Ok(None),
            _ => damaged(&self.file, "a block is of no kind that is known"),
        }
    }

    /// Pairs in the blocks so far.
    pub(crate) fn pairs(&self) -> u64 {
        self.pairs
    }
}

impl<'r> Block<'r> {
    /// The encoded pairs.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = std::result::Result<Pair<'r>, Nonsense>> + use<'r> {
        let (bare, tagged) = if self.is_bare { (self.payload, &[][..]) } else { (&[][..], self.payload) };
        let tagged = operations(tagged).map(|operation| match operation? {
            Operation::Put { key, value, expires } => Ok(Pair { key, value, expires }),
            Operation::Delete { .. } => Err(Nonsense),
        });
        bare_pairs(bare).chain(tagged)
    }
}

/// Pairs as format version 1 has them.
fn bare_pairs(payload: &[u8]) -> impl Iterator<Item = std::result::Result<Pair<'_>, Nonsense>> {
    let mut fields = Fields(payload);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let mut read = || Some(Pair { key: fields.sized()?, value: fields.sized()?, expires: 0 });
        let pair = read();
        if pair.is_none() {
            fields.0 = &[];
        }
        Some(pair.ok_or(Nonsense))
    })
}

/// A pair larger than this was refused when it was written.
const _: () = assert!(MAX_COMMIT + 2 * BLOCK_SIZE < u32::MAX as usize);
