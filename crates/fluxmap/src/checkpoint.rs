//! Checkpoints: all pairs as they were after one commit, in one file.
//!
//! After its header come blocks, each with a checksum of its own, and at the end a
//! block that says how many there were. A checkpoint is written under a draft's name
//! and synced before it replaces the one before, so a file of this name is complete.

use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, NamedFile};
use crate::wal::format::{
    Fields, FileHeader, FileKind, Identity, Lsn, MAX_COMMIT, Nonsense, Operation, operations,
};
use crate::wal::pieces::Pieces;
use fluxmap_index::Time;
use std::mem;

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

/// A checkpoint that is being written, under a draft's name.
pub(crate) struct Draft {
    file: NamedFile,
    salt: u64,
    block: Vec<u8>,
    /// Of the next block.
    number: u64,
    written: Written,
    synced: u64,
}

impl Draft {
    /// Of the pairs after a commit, from where the log goes on in this segment.
    pub(crate) fn create(
        directory: &Directory,
        identity: &Identity,
        commit: Lsn,
        time: Time,
        log_segment: u64,
    ) -> Result<Self> {
        let file = directory.open(CHECKPOINT_DRAFT, OpenMode::Create)?;
        let (identity, salt) = (identity.clone(), directory.random());
        let header = FileHeader {
            kind: FileKind::Checkpoint,
            identity,
            salt,
            number: commit,
            detail: log_segment,
            time,
        };
        let (block, written) = (Vec::new(), Written::default());
        let mut draft = Draft { file, salt, block, number: 0, written, synced: 0 };
        draft.write(&header.encode())?;
        Ok(draft)
    }

    /// Where the next block is put together: to be appended to.
    pub(crate) fn block(&mut self) -> &mut Vec<u8> {
        if self.block.is_empty() {
            self.block.resize(BLOCK_HEADER, 0);
        }
        &mut self.block
    }

    /// Writes the block, which has so many pairs.
    pub(crate) fn write_block(&mut self, pairs: u32) -> Result<Written> {
        self.write_sealed(pairs, PAIRS)?;
        self.written.pairs += u64::from(pairs);
        Ok(self.written)
    }

    /// Writes the next block of `pairs`. Returns whether there are more: if not, the draft is
    /// whole, and durable.
    pub(crate) fn write_next(&mut self, pairs: &mut dyn Pairs) -> Result<bool> {
        match pairs.fill(self.block())? {
            0 => self.finish().map(|()| false),
            count => self.write_block(count).map(|_| true),
        }
    }

    /// Ends it, and makes it durable.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let pairs = self.written.pairs;
        self.block().extend(pairs.to_le_bytes());
        self.write_sealed(0, END)?;
        self.file.sync()
    }

    /// How far it has come.
    pub(crate) fn written(&self) -> Written {
        self.written
    }

    fn write_sealed(&mut self, pairs: u32, kind: u8) -> Result<()> {
        let mut block = mem::take(&mut self.block);
        seal(&mut block, self.salt, self.number, pairs, kind);
        self.number += 1;
        self.write(&block)?;
        if block.capacity() <= 2 * BLOCK_SIZE {
            block.clear();
            self.block = block;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(bytes, self.written.bytes)?;
        self.written.bytes += bytes.len() as u64;
        if self.written.bytes >= self.synced + SYNC_EVERY {
            self.file.sync()?;
            self.synced = self.written.bytes;
        }
        Ok(())
    }
}

/// Writes a checkpoint's draft and makes it durable. `progress` is called after each block.
pub(crate) fn write_draft(
    directory: &Directory,
    identity: &Identity,
    pairs: &mut dyn Pairs,
    log_segment: u64,
    mut progress: impl FnMut(Written),
) -> Result<()> {
    let mut draft = Draft::create(directory, identity, pairs.timestamp(), pairs.time(), log_segment)?;
    while draft.write_next(pairs)? {
        progress(draft.written());
    }
    Ok(())
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

/// A block whose checksum holds, wherever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoundBlock {
    pub(crate) number: u64,
    pub(crate) is_end: bool,
    is_bare: bool,
    /// In the block; at the end, in the file.
    pub(crate) pairs: u64,
    pub(crate) offset: u64,
    /// Where it ends.
    pub(crate) end: u64,
}

/// The length of the end of a checkpoint.
const END_LENGTH: u64 = BLOCK_HEADER as u64 + 8;

impl SoundBlock {
    /// The block at an offset of a file, if there is a sound one whose number is at most
    /// `highest`.
    pub(crate) fn read(pieces: &mut Pieces, salt: u64, offset: u64, highest: u64) -> Result<Option<Self>> {
        let header = pieces.get(offset, BLOCK_HEADER)?;
        let Some(BlockHeader { crc, length, number, pairs, kind }) = BlockHeader::parse(header) else {
            return Ok(None);
        };
        // All of this before the checksum, which takes time where blocks are looked for.
        if number > highest || ![BARE_PAIRS, PAIRS, END].contains(&kind) || header[21..] != [0; 3] {
            return Ok(None);
        }
        let begun = block_crc(salt, &header[4..]);
        let payload = offset + BLOCK_HEADER as u64;
        let end = payload + u64::from(length);
        if pieces.checksum(begun, payload..end)? != Some(crc) {
            return Ok(None);
        }
        let is_end = kind == END;
        let pairs = if is_end { Fields(pieces.get(payload, 8)?).u64() } else { Some(u64::from(pairs)) };
        let is_bare = kind == BARE_PAIRS;
        Ok(pairs.map(|pairs| SoundBlock { number, is_end, is_bare, pairs, offset, end }))
    }

    /// What is in it: nothing at the end.
    pub(crate) fn content<'p>(&self, pieces: &'p mut Pieces) -> Result<Block<'p>> {
        let start = self.offset + BLOCK_HEADER as u64;
        let length = if self.is_end { 0 } else { (self.end - start) as usize };
        let payload = pieces.get(start, length)?;
        Ok(Block { offset: self.offset, is_bare: self.is_bare, payload })
    }
}

/// The header of a block, as it stands.
struct BlockHeader {
    crc: u32,
    length: u32,
    number: u64,
    pairs: u32,
    kind: u8,
}

impl BlockHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(..BLOCK_HEADER)?);
        let (crc, length, number) = (fields.u32()?, fields.u32()?, fields.u64()?);
        Some(BlockHeader { crc, length, number, pairs: fields.u32()?, kind: fields.u8()? })
    }
}

/// A checkpoint that is being read.
pub(crate) struct Reader {
    pieces: Pieces,
    pub(crate) header: FileHeader,
    offset: u64,
    number: u64,
    pairs: u64,
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
        let pieces = Pieces::of(file)?;
        Ok(Some(Reader { pieces, header, offset: end as u64, number: 0, pairs: 0 }))
    }

    pub(crate) fn file(&self) -> &NamedFile {
        self.pieces.file()
    }

    /// How long the file is.
    pub(crate) fn length(&self) -> u64 {
        self.pieces.length()
    }

    /// How many pairs the file has, as its end says; `None` if there is no sound end.
    pub(crate) fn total_pairs(&mut self) -> Result<Option<u64>> {
        let offset = self.length().saturating_sub(END_LENGTH);
        let block = SoundBlock::read(&mut self.pieces, self.header.salt, offset, u64::MAX)?;
        Ok(block.filter(|block| block.is_end).map(|block| block.pairs))
    }

    /// The next block, checked, or `None` after the last. A checkpoint is sound
    /// only if the last has been reached.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        let start = self.offset;
        let damaged = |pieces: &Pieces, what: &str| Err(pieces.file().damaged(start, what));
        let header = self.pieces.get(start, BLOCK_HEADER)?;
        let Some(BlockHeader { crc, length, number, pairs, kind }) = BlockHeader::parse(header) else {
            return damaged(&self.pieces, "the file ends where a block should begin");
        };
        let begun = block_crc(self.header.salt, &header[4..]);
        let payload = start + BLOCK_HEADER as u64;
        let end = payload + u64::from(length);
        if end > self.length() {
            return damaged(&self.pieces, "a block goes on beyond the end of the file");
        }
        if self.pieces.checksum(begun, payload..end)? != Some(crc) {
            return damaged(&self.pieces, "the checksum of a block does not match");
        }
        if number != self.number {
            return damaged(&self.pieces, "a block is not in its place");
        }
        self.offset = end;
        self.number += 1;
        match kind {
            PAIRS | BARE_PAIRS => {
                self.pairs += u64::from(pairs);
                let payload = self.pieces.get(payload, length as usize)?;
                Ok(Some(Block { offset: start, is_bare: kind == BARE_PAIRS, payload }))
            }
            END if Fields(self.pieces.get(payload, 8)?).u64() != Some(self.pairs) => {
                damaged(&self.pieces, "the number of pairs is not what the end says")
            }
            END if end != self.length() => damaged(&self.pieces, "something follows the end"),
            END => Ok(None),
            _ => damaged(&self.pieces, "a block is of no kind that is known"),
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

/// The longest block: a pair that is larger than a commit was refused when it was written.
pub(crate) const MAX_BLOCK: usize = MAX_COMMIT + 2 * BLOCK_SIZE;
const _: () = assert!(MAX_BLOCK < u32::MAX as usize);
