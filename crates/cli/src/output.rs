//! The program's output: answers on standard output, notes on standard error.
//!
//! Both may be pipes that were closed at the other end. An answer that cannot be written is an error like
//! any other (see [`is_broken_pipe`]). A note that cannot be written is dropped: nobody is left to read it.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use serde_json::Value;

/// Standard output, as text for people or as JSON with one object per line.
pub(crate) struct Output {
    writer: Box<dyn Write>,
    json: bool,
}

impl Output {
    /// Writes to standard output. Answers are JSON if `json` is set.
    pub(crate) fn new(json: bool) -> Self {
        Self::to(BufWriter::new(io::stdout()), json)
    }

    /// Writes to `writer` instead of standard output.
    pub(crate) fn to(writer: impl Write + 'static, json: bool) -> Self {
        Self { writer: Box::new(writer), json }
    }

    /// Whether answers are JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Writes one line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.writer, "{text}").map_err(unwritable)
    }

    /// Writes one JSON object as one line.
    pub(crate) fn object(&mut self, object: &Value) -> io::Result<()> {
        writeln!(self.writer, "{object}").map_err(unwritable)
    }

    /// Writes `object` if answers are JSON, else `text`.
    pub(crate) fn answer(&mut self, text: impl Display, object: &Value) -> io::Result<()> {
        if self.json { self.object(object) } else { self.line(text) }
    }

    /// Hands the buffered answers to the reader.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().map_err(unwritable)
    }
}

/// Adds to `error` that the output could not be written, so that a user does not suspect the database.
fn unwritable(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write the output: {error}"))
}

/// Writes one line on standard error.
pub(crate) fn note(message: impl Display) {
    // Standard error is the last resort: if it is closed, nobody can be told.
    let _ = writeln!(io::stderr(), "{message}");
}

/// Whether `error` was caused by a reader that closed its end of the output.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `noun` for one, `noun` with an `s` for any other number: "1 record", "3,000 records".
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
        assert_eq!(counted(2_500, "key"), "2,500 keys");
    }

    #[test]
    fn a_broken_pipe_is_recognised_behind_its_context() {
        let pipe = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&pipe.context("cannot write the answer")));
        let full = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_broken_pipe(&full));
    }
}
