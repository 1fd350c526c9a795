//! Reads the numbered lines of a file, each up to a maximum length.
//!
//! Lines that were read ahead can be given back. When a record that seems to span lines turns out to be
//! malformed, the lines after its first can then be read again as other records.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};

/// The most bytes of a line that are kept. The rest of a longer line is skipped.
pub(super) const LONGEST: usize = 16 << 20;

/// One line without its ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line, counted from 1.
    pub(super) number: u64,
    /// The content, of at most [`LONGEST`] bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether the line was longer, so that `bytes` is only its beginning.
    pub(super) cut: bool,
}

impl Line {
    /// The line as text.
    ///
    /// # Errors
    ///
    /// If the line is too long or not UTF-8: the reason, as text.
    pub(super) fn text(&self) -> Result<&str, String> {
        if self.cut {
            return Err(format!("the line is longer than {} MiB", LONGEST >> 20));
        }
        std::str::from_utf8(&self.bytes)
            .map_err(|error| format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1))
    }
}

/// Reads lines, and lets the caller give lines back.
pub(super) struct Lines<R> {
    reader: R,
    returned: VecDeque<Line>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, returned: VecDeque::new(), number: 0 }
    }

    /// The next line, whether or not it is blank.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.returned.pop_front() {
            return Ok(Some(line));
        }
        let mut bytes = Vec::new();
        let limit = LONGEST as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = bytes.last() == Some(&b'\n');
        let cut = !ended && bytes.len() > LONGEST;
        if ended {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if cut {
            bytes.truncate(LONGEST);
            self.reader.skip_until(b'\n')?;
        }
        if self.number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        Ok(Some(Line { number: self.number, bytes, cut }))
    }

    /// The next line that is not blank.
    pub(super) fn next_filled(&mut self) -> io::Result<Option<Line>> {
        while let Some(line) = self.next()? {
            if !line.bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Puts back `lines`, which must be the last ones that were read: they are the next to be read.
    pub(super) fn give_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        for line in lines.rev() {
            self.returned.push_front(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(u64, String)> {
        let mut lines = Lines::new(bytes);
        let mut texts = Vec::new();
        while let Some(line) = lines.next_filled().unwrap() {
            texts.push((line.number, String::from_utf8(line.bytes).unwrap()));
        }
        texts
    }

    #[test]
    fn lines_are_numbered_and_lose_their_endings() {
        let read = texts(b"\xef\xbb\xbfa\r\n\n  \nb\nc");
        assert_eq!(read, [(1, "a".into()), (4, "b".into()), (5, "c".into())]);
    }

    #[test]
    fn lines_given_back_come_again_in_order() {
        let mut lines = Lines::new(&b"a\nb\nc\nd\n"[..]);
        let first = lines.next().unwrap().unwrap();
        let ahead = [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
        lines.give_back(ahead.into_iter());
        let numbers: Vec<u64> =
            std::iter::from_fn(|| lines.next().unwrap()).map(|line| line.number).collect();
        assert_eq!((first.number, numbers), (1, vec![2, 3, 4]));
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_intact() {
        let mut bytes = vec![b'x'; LONGEST + 5];
        bytes.extend_from_slice(b"\nnext\n");
        let mut lines = Lines::new(&bytes[..]);
        let long = lines.next().unwrap().unwrap();
        assert!(long.cut && long.bytes.len() == LONGEST);
        assert!(long.text().unwrap_err().contains("longer than 16 MiB"));
        let next = lines.next().unwrap().unwrap();
        assert_eq!((next.number, next.text()), (2, Ok("next")));
    }

    #[test]
    fn a_line_of_exactly_the_bound_is_whole() {
        let mut bytes = vec![b'x'; LONGEST];
        bytes.push(b'\n');
        let mut lines = Lines::new(&bytes[..]);
        let line = lines.next().unwrap().unwrap();
        assert!(!line.cut && line.bytes.len() == LONGEST);
        assert!(lines.next().unwrap().is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_located() {
        let mut lines = Lines::new(&b"ab\xffc\n"[..]);
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line.text(), Err("invalid UTF-8 at byte 3".to_owned()));
    }
}
