//! Checkpoints: all pairs as they were after one commit, in one file.
//!
//! After the file's header come blocks, each with its own checksum, and at the end a block with the
//! number of pairs. A checkpoint is written under a draft's name and synced before it replaces the
//! previous one, so a file under the checkpoint's name is complete.

use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, NamedFile};
use crate::wal::format::{
    FieldReader, FileHeader, FileIdentity, FileKind, LogOperation, Lsn, MAX_COMMIT, Malformed, operations,
};
use crate::wal::pieces::Pieces;
use fluxmap_index::{Time, planted};
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
/// The payload of a block of pairs is a sequence of puts, encoded as in a commit in the log. In version
/// 1 each pair is the length of the key (4 bytes), the key, the length of the value (4 bytes), the
/// value. The payload of the end is the number of pairs in the file (8 bytes).
const BLOCK_HEADER: usize = 24;
const BARE_PAIRS: u8 = 1;
const END: u8 = 2;
const PAIRS: u8 = 3;

/// The size in bytes from which on a block is full.
pub(crate) const BLOCK_SIZE: usize = 256 << 10;
/// The number of bytes between two syncs while a checkpoint is written: small enough not to keep the
/// disk from the log for long.
const SYNC_EVERY: u64 = 4 << 20;

/// The source of a checkpoint's pairs.
pub(crate) trait PairSource {
    /// Returns the commit after which the pairs are read.
    fn timestamp(&self) -> Lsn;

    /// Returns the latest known time by which keys expire; 0 if no key can have expired.
    fn time(&self) -> Time;

    /// Appends about [`BLOCK_SIZE`] bytes of pairs, each as
    /// [`push_operation`](crate::wal::format::push_operation) does, and returns their number; zero at
    /// the end.
    fn fill(&mut self, block: &mut Vec<u8>) -> Result<u32>;
}

/// The progress of writing.
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
    /// The number of the next block.
    number: u64,
    written: Written,
    synced: u64,
}

impl Draft {
    /// Creates a draft for the pairs after a commit. The log continues in segment `log_segment`.
    pub(crate) fn create(
        directory: &Directory,
        identity: &FileIdentity,
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

    /// Returns the buffer of the next block, to append pairs to.
    pub(crate) fn block(&mut self) -> &mut Vec<u8> {
        if self.block.is_empty() {
            self.block.resize(BLOCK_HEADER, 0);
        }
        &mut self.block
    }

    /// Writes the block, which has this many pairs.
    pub(crate) fn write_block(&mut self, pairs: u32) -> Result<Written> {
        self.write_sealed(pairs, PAIRS)?;
        self.written.pairs += u64::from(pairs);
        Ok(self.written)
    }

    /// Writes the next block of `pairs`. Returns whether there are more: if not, the draft is complete
    /// and durable.
    pub(crate) fn write_next(&mut self, pairs: &mut dyn PairSource) -> Result<bool> {
        match pairs.fill(self.block())? {
            0 => self.finish().map(|()| false),
            count => self.write_block(count).map(|_| true),
        }
    }

    /// Writes the end, and makes the draft durable.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let pairs = self.written.pairs;
        self.block().extend(pairs.to_le_bytes());
        self.write_sealed(0, END)?;
        if planted("checkpoint-draft-unsynced") { Ok(()) } else { self.file.sync() }
    }

    /// Returns how much has been written.
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
    identity: &FileIdentity,
    pairs: &mut dyn PairSource,
    log_segment: u64,
    mut progress: impl FnMut(Written),
) -> Result<()> {
    let mut draft = Draft::create(directory, identity, pairs.timestamp(), pairs.time(), log_segment)?;
    while draft.write_next(pairs)? {
        progress(draft.written());
    }
    Ok(())
}

/// Puts the draft in the place of the previous checkpoint.
pub(crate) fn publish_draft(directory: &Directory) -> Result<()> {
    directory.rename(CHECKPOINT_DRAFT, CHECKPOINT)?;
    if planted("checkpoint-directory-unsynced") { Ok(()) } else { directory.sync() }
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

/// A block whose checksum is correct, wherever in the file it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoundBlock {
    pub(crate) number: u64,
    pub(crate) is_end: bool,
    is_bare: bool,
    /// The number of pairs in the block or, for the end, in the file.
    pub(crate) pairs: u64,
    pub(crate) offset: u64,
    /// The offset at which the block ends.
    pub(crate) end: u64,
}

/// The length of a checkpoint's end.
const END_LENGTH: u64 = BLOCK_HEADER as u64 + 8;

impl SoundBlock {
    /// Returns the block at this offset of a file, if it is sound and its number is at most `highest`.
    pub(crate) fn read(pieces: &mut Pieces, salt: u64, offset: u64, highest: u64) -> Result<Option<Self>> {
        let header = pieces.get(offset, BLOCK_HEADER)?;
        let Some(BlockHeader { crc, length, number, pairs, kind }) = BlockHeader::parse(header) else {
            return Ok(None);
        };
        // Check these fields before the checksum, which is slow while a search tries many offsets.
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
        let pairs = if is_end { FieldReader(pieces.get(payload, 8)?).u64() } else { Some(u64::from(pairs)) };
        let is_bare = kind == BARE_PAIRS;
        Ok(pairs.map(|pairs| SoundBlock { number, is_end, is_bare, pairs, offset, end }))
    }

    /// Returns the block's pairs: none for the end.
    pub(crate) fn content<'p>(&self, pieces: &'p mut Pieces) -> Result<PairBlock<'p>> {
        let start = self.offset + BLOCK_HEADER as u64;
        let length = if self.is_end { 0 } else { (self.end - start) as usize };
        let payload = pieces.get(start, length)?;
        Ok(PairBlock { offset: self.offset, is_bare: self.is_bare, payload })
    }
}

/// The fields of a block's header.
struct BlockHeader {
    crc: u32,
    length: u32,
    number: u64,
    pairs: u32,
    kind: u8,
}

impl BlockHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = FieldReader(bytes.get(..BLOCK_HEADER)?);
        let (crc, length, number) = (fields.u32()?, fields.u32()?, fields.u64()?);
        Some(BlockHeader { crc, length, number, pairs: fields.u32()?, kind: fields.u8()? })
    }
}

/// A checkpoint that is being read.
pub(crate) struct CheckpointReader {
    pieces: Pieces,
    pub(crate) header: FileHeader,
    offset: u64,
    number: u64,
    pairs: u64,
}

/// A block of pairs.
pub(crate) struct PairBlock<'r> {
    pub(crate) offset: u64,
    is_bare: bool,
    payload: &'r [u8],
}

/// An encoded pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncodedPair<'r> {
    pub(crate) key: &'r [u8],
    pub(crate) value: &'r [u8],
    /// Zero if the value does not expire.
    pub(crate) expires: Time,
}

impl CheckpointReader {
    /// Opens the checkpoint of a directory, if there is one.
    pub(crate) fn open(directory: &Directory) -> Result<Option<Self>> {
        let Some(file) = directory.find(CHECKPOINT)? else {
            return Ok(None);
        };
        let (header, end) = file.read_header(FileKind::Checkpoint)?;
        let pieces = Pieces::of(file)?;
        Ok(Some(CheckpointReader { pieces, header, offset: end as u64, number: 0, pairs: 0 }))
    }

    pub(crate) fn file(&self) -> &NamedFile {
        self.pieces.file()
    }

    /// Returns the length of the file.
    pub(crate) fn length(&self) -> u64 {
        self.pieces.length()
    }

    /// Returns the number of pairs according to the end of the file; `None` if there is no sound end.
    pub(crate) fn total_pairs(&mut self) -> Result<Option<u64>> {
        let offset = self.length().saturating_sub(END_LENGTH);
        let block = SoundBlock::read(&mut self.pieces, self.header.salt, offset, u64::MAX)?;
        Ok(block.filter(|block| block.is_end).map(|block| block.pairs))
    }

    /// Reads and checks the next block; `None` after the last. A checkpoint is sound only if its end has
    /// been reached.
    pub(crate) fn next_block(&mut self) -> Result<Option<PairBlock<'_>>> {
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
        // The block is sound, but it was moved, or a block before it is missing.
        if number != self.number {
            return damaged(&self.pieces, "a block is not in its place");
        }
        self.offset = end;
        self.number += 1;
        match kind {
            PAIRS | BARE_PAIRS => {
                self.pairs += u64::from(pairs);
                let payload = self.pieces.get(payload, length as usize)?;
                Ok(Some(PairBlock { offset: start, is_bare: kind == BARE_PAIRS, payload }))
            }
            END if FieldReader(self.pieces.get(payload, 8)?).u64() != Some(self.pairs) => {
                damaged(&self.pieces, "the number of pairs differs from the one in the end of the file")
            }
            END if end != self.length() => damaged(&self.pieces, "bytes follow the end"),
            END => Ok(None),
            _ => damaged(&self.pieces, "a block is of an unknown kind"),
        }
    }

    /// Returns the number of pairs in the blocks read so far.
    pub(crate) fn pairs(&self) -> u64 {
        self.pairs
    }
}

impl<'r> PairBlock<'r> {
    /// Returns the encoded pairs.
    pub(crate) fn pairs(
        &self,
    ) -> impl Iterator<Item = std::result::Result<EncodedPair<'r>, Malformed>> + use<'r> {
        let (bare, tagged) = if self.is_bare { (self.payload, &[][..]) } else { (&[][..], self.payload) };
        let tagged = operations(tagged).map(|operation| match operation? {
            LogOperation::Put { key, value, expires } => Ok(EncodedPair { key, value, expires }),
            LogOperation::Delete { .. } => Err(Malformed),
        });
        bare_pairs(bare).chain(tagged)
    }
}

/// Returns the pairs of a payload in format version 1.
fn bare_pairs(payload: &[u8]) -> impl Iterator<Item = std::result::Result<EncodedPair<'_>, Malformed>> {
    let mut fields = FieldReader(payload);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let mut read = || Some(EncodedPair { key: fields.sized()?, value: fields.sized()?, expires: 0 });
        let pair = read();
        if pair.is_none() {
            fields.0 = &[];
        }
        Some(pair.ok_or(Malformed))
    })
}

/// The longest block. A pair that is larger than a commit was refused when it was written.
pub(crate) const MAX_BLOCK: usize = MAX_COMMIT + 2 * BLOCK_SIZE;
const _: () = assert!(MAX_BLOCK < u32::MAX as usize);
