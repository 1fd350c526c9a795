//! A file that is read in pieces. However large the file is, only one piece of it is in memory, or the
//! one frame or block that is being read.

use crate::error::PersistenceError;
use crate::wal::directory::NamedFile;
use memchr::memmem;
use std::ops::Range;
use std::path::Path;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The number of bytes read at once.
const PIECE: usize = 256 << 10;
/// Up to this length a frame or block is read before its checksum is known to be correct. A length that
/// damage has increased must not cost memory.
const TRUSTED: u64 = 5 << 20;

/// A file and the piece of it that was read last.
#[derive(Debug)]
pub(crate) struct Pieces {
    file: NamedFile,
    /// The length of the file when it was opened.
    length: u64,
    /// The offset at which the piece begins.
    start: u64,
    piece: Vec<u8>,
}

impl Pieces {
    pub(crate) fn of(file: NamedFile) -> Result<Self> {
        let length = file.len()?;
        Ok(Pieces { file, length, start: 0, piece: Vec::new() })
    }

    pub(crate) fn file(&self) -> &NamedFile {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the length of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns `length` bytes from `offset` on, or as many as there are.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> Result<&[u8]> {
        let behind = self.length.saturating_sub(offset);
        let length = usize::try_from(behind).map_or(length, |behind| behind.min(length));
        let is_here = |from: usize| from.checked_add(length).is_some_and(|end| end <= self.piece.len());
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let from = match from.filter(|from| is_here(*from)) {
            Some(from) => from,
            None => {
                self.read(offset, length.max(PIECE))?;
                0
            }
        };
        let piece = &self.piece[from..];
        Ok(&piece[..length.min(piece.len())])
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<()> {
        let behind = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(behind);
        if self.piece.capacity() > 2 * length.max(PIECE) {
            // Free the memory of a large frame that was read before.
            self.piece = Vec::new();
        }
        self.start = offset;
        self.piece.resize(length, 0);
        let filled = self.file.read_at(&mut self.piece, offset)?;
        self.piece.truncate(filled);
        Ok(())
    }

    /// Continues a checksum over a part of the file; `None` if the file ends before the part does.
    pub(crate) fn checksum(&mut self, mut crc: u32, mut part: Range<u64>) -> Result<Option<u32>> {
        if part.end > self.length {
            return Ok(None);
        }
        // Read a short part at once, because the caller reads its content next.
        let at_once = if part.end - part.start <= TRUSTED { TRUSTED } else { PIECE as u64 };
        while part.start < part.end {
            let piece = self.get(part.start, (part.end - part.start).min(at_once) as usize)?;
            if piece.is_empty() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, piece);
            part.start += piece.len() as u64;
        }
        Ok(Some(crc))
    }

    /// Returns the first place of these bytes at or after `from`.
    pub(crate) fn find(&mut self, bytes: &[u8; 4], mut from: u64) -> Result<Option<u64>> {
        let finder = memmem::Finder::new(bytes);
        loop {
            let piece = self.get(from, PIECE)?;
            if let Some(found) = finder.find(piece) {
                return Ok(Some(from + found as u64));
            }
            if piece.len() < bytes.len() {
                return Ok(None);
            }
            // The bytes may begin in this piece and end in the next.
            from += (piece.len() - (bytes.len() - 1)) as u64;
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::disk::{OpenMode, OsDisk};
    use crate::wal::directory::Directory;
    use std::sync::Arc;

    fn pieces(bytes: &[u8]) -> (tempfile::TempDir, Pieces) {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(Arc::new(OsDisk), dir.path().to_owned(), crate::host::Host::default());
        directory.open("file", OpenMode::Create).and_then(|file| file.write_at(bytes, 0)).expect("a file");
        let file = directory.open("file", OpenMode::Read).expect("it is there");
        (dir, Pieces::of(file).expect("it can be read"))
    }

    #[test]
    fn any_part_is_found_and_little_is_kept() {
        let bytes: Vec<u8> = (0..3 * PIECE as u32 / 4 + 5).flat_map(|n| n.to_le_bytes()).collect();
        let (_dir, mut pieces) = pieces(&bytes);
        let length = bytes.len();
        for (offset, wanted) in
            [(0, 10), (PIECE - 3, 6), (5, 9), (length - 4, 100), (length, 1), (length + 9, 1)]
        {
            let there = bytes.get(offset..(offset + wanted).min(length)).unwrap_or_default();
            assert_eq!(pieces.get(offset as u64, wanted).expect("a part"), there, "{offset}");
            assert!(pieces.piece.capacity() <= 2 * PIECE);
        }
        assert_eq!(pieces.get(1, length).expect("all of it").len(), length - 1);
        pieces.get(0, 1).expect("a part");
        assert!(pieces.piece.capacity() <= 2 * PIECE, "a large part was let go");
    }

    #[test]
    fn what_lies_across_two_pieces_is_found() {
        for at in (PIECE - 5..PIECE + 2).chain([0, 2 * PIECE]) {
            let mut bytes = vec![0; 2 * PIECE + 4];
            bytes[at..at + 4].copy_from_slice(b"mark");
            let (_dir, mut pieces) = pieces(&bytes);
            assert_eq!(pieces.find(b"mark", 0).expect("a search"), Some(at as u64));
            assert_eq!(pieces.find(b"mark", at as u64 + 1).expect("a search"), None);
        }
    }

    #[test]
    fn a_checksum_over_many_pieces_is_that_of_all_of_it() {
        let bytes: Vec<u8> = (0..2 * TRUSTED as u32 / 4).flat_map(|n| n.to_le_bytes()).collect();
        let length = bytes.len() as u64;
        let (_dir, mut pieces) = pieces(&bytes);
        let crc = crc32c::crc32c(&bytes[7..]);
        assert_eq!(pieces.checksum(0, 7..length).expect("it reads"), Some(crc));
        assert!(pieces.piece.capacity() <= 2 * PIECE);
        assert_eq!(pieces.checksum(0, 7..length + 1).expect("it reads"), None);
    }
}
