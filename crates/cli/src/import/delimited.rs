//! Splits lines into the fields of CSV, TSV and their relatives (RFC 4180), strictly.
//!
//! A field that begins with `"` ends at the next `"` that is not doubled, even lines later. A quote inside
//! a field that does not begin with one is an ordinary character. Text after a closing quote and a quote
//! that is never closed are errors. Many readers accept both, but they usually mean that fields were
//! merged or lost.
//!
//! The fields come from `csv-core`, the parser of the crate `csv`. This parser accepts text after a closing
//! quote, so [`Splitter::end_field`] looks for it. The reader of `csv` itself would read a quote that is
//! never closed up to the end of the file and could not go back, so the parser gets the lines one by one.

use std::io::{self, BufRead};
use std::mem;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};

use super::lines::{LONGEST, Lines};

/// A record: the number of its first line, and its fields or the reason why it is malformed.
pub(super) type Split = (u64, Result<Vec<String>, String>);

/// Splits the lines of a file into records.
pub(super) struct Splitter {
    delimiter: u8,
    quotes: bool,
    /// Reset before each record. A copy for each would split wrongly: `clone` in csv-core 0.1.13 leaves out
    /// some of the parser's tables.
    parser: Reader,
    /// The fields of this record that have ended.
    fields: Vec<String>,
    /// The beginning of the field after those, if it goes on in the next line.
    field: Vec<u8>,
    /// Whether the next line begins inside a quoted field.
    open: bool,
    /// The parser's output. It is kept to be used again.
    content: Vec<u8>,
}

impl Splitter {
    /// `delimiter` separates fields: an ASCII character other than a quote or the end of a line. `quotes`
    /// says whether `"` quotes a field.
    pub(super) fn new(delimiter: u8, quotes: bool) -> Self {
        let parser = ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(quotes)
            // By default a lone carriage return ends a record, too, and the rest of its line would be lost.
            .terminator(Terminator::Any(b'\n'))
            .build();
        let (fields, field, content) = (Vec::new(), Vec::new(), Vec::new());
        Self { delimiter, quotes, parser, fields, field, open: false, content }
    }

    /// The character between two fields.
    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Reads the next record. If the record is malformed, its lines after the first are read again as
    /// separate records, so that a stray quote costs only one record.
    pub(super) fn next_record<R: BufRead>(&mut self, lines: &mut Lines<R>) -> io::Result<Option<Split>> {
        let Some(first) = lines.next_filled()? else { return Ok(None) };
        let number = first.number;
        self.begin();
        let mut ahead = Vec::new();
        let mut size = first.bytes.len();
        let mut fed =
            first.text().and_then(|text| self.feed(text).map_err(|reason| format!("bad quoting: {reason}")));
        loop {
            match fed {
                Ok(true) => return Ok(Some((number, Ok(mem::take(&mut self.fields))))),
                // A stray quote may open a field that reaches the end of the file: do not keep all of it
                // in memory.
                Ok(false) if size > LONGEST => {
                    fed = Err(format!("a quoted field is longer than {} MiB", LONGEST >> 20));
                }
                Ok(false) => match lines.next()? {
                    Some(line) => {
                        size += line.bytes.len() + 1;
                        fed = line.text().and_then(|text| self.feed(text)).map_err(|reason| {
                            let end = line.number;
                            format!("bad quoting: a quote opened here reaches line {end}: {reason}")
                        });
                        ahead.push(line);
                    }
                    None => fed = Err("bad quoting: the quote is never closed".to_owned()),
                },
                Err(reason) => {
                    // The quote may be the only mistake: read the lines after it again as other records.
                    lines.give_back(ahead.into_iter());
                    return Ok(Some((number, Err(reason))));
                }
            }
        }
    }

    /// Forgets the record before, which may have ended inside a field because it was malformed.
    fn begin(&mut self) {
        self.fields.clear();
        self.field.clear();
        self.open = false;
        self.parser.reset();
        // After a reset, the parser drops a byte order mark from the first bytes that it reads, so it would
        // drop the mark of any record. Let it read an empty line first, which it skips. The mark of the file
        // is dropped by `Lines`.
        self.parser.read_field(b"\n", &mut [0]);
    }

    /// Reads the next line. Returns whether the record ends with this line.
    fn feed(&mut self, line: &str) -> Result<bool, String> {
        let line = [line, "\n"].concat();
        // The content of a field is no longer than the field itself.
        self.content.resize(self.content.len().max(line.len()), 0);
        let mut rest = &*line;
        while !rest.is_empty() {
            let (result, read, written) = self.parser.read_field(rest.as_bytes(), &mut self.content);
            self.field.extend_from_slice(&self.content[..written]);
            let raw;
            (raw, rest) = rest.split_at(read);
            if let ReadFieldResult::Field { record_end } = result {
                self.end_field(raw)?;
                if record_end {
                    return Ok(true);
                }
            }
        }
        self.open = true;
        Ok(false)
    }

    /// Ends a field. `raw` is the part of the field in its last line, and the delimiter or line break after
    /// it.
    fn end_field(&mut self, raw: &str) -> Result<(), String> {
        let opened = if self.open { Some(raw) } else { raw.strip_prefix('"').filter(|_| self.quotes) };
        let stray = opened.and_then(|raw| behind_closing_quote(&raw[..raw.len() - 1]));
        if let Some(c) = stray {
            let field = self.fields.len() + 1;
            return Err(format!("{c:?} after the closing quote of field {field}"));
        }
        let field = String::from_utf8(mem::take(&mut self.field)).map_err(|error| error.to_string())?;
        self.fields.push(field);
        self.open = false;
        Ok(())
    }
}

/// The first character after the quote that closes a field. `raw` follows the quote that opens it.
fn behind_closing_quote(raw: &str) -> Option<char> {
    // Doubled quotes are part of the field.
    let (_, behind) = raw.split("\"\"").find_map(|part| part.split_once('"'))?;
    behind.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(bytes: &[u8], mut splitter: Splitter) -> Vec<Split> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| splitter.next_record(&mut lines).unwrap()).collect()
    }

    fn csv(bytes: &[u8]) -> Vec<Split> {
        records(bytes, Splitter::new(b',', true))
    }

    fn fields(texts: &[&str]) -> Result<Vec<String>, String> {
        Ok(texts.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn fields_are_split_at_the_delimiter() {
        let read = csv(b"a,b,c\r\n,,\nx\n");
        let expected = [(1, fields(&["a", "b", "c"])), (2, fields(&["", "", ""])), (3, fields(&["x"]))];
        assert_eq!(read, expected);
        let semicolon = Splitter::new(b';', true);
        assert_eq!(records(b"a,b;c", semicolon), [(1, fields(&["a,b", "c"]))]);
    }

    #[test]
    fn quoted_fields_hold_delimiters_quotes_and_lines() {
        let read = csv(b"\"a,b\",\"say \"\"hi\"\"\",\"\"\n\"two\r\nlines\",x\nlast,y\n");
        let expected = [
            (1, fields(&["a,b", "say \"hi\"", ""])),
            (2, fields(&["two\nlines", "x"])),
            (4, fields(&["last", "y"])),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_stray_quote_costs_one_record() {
        let read = csv(b"a,1\nb,\"2\nc,3\nd,\"4\"\n");
        assert_eq!(read.len(), 4);
        assert_eq!(read[0], (1, fields(&["a", "1"])));
        assert_eq!(read[1].0, 2);
        assert!(read[1].1.as_ref().unwrap_err().contains("bad quoting"));
        assert_eq!(read[2], (3, fields(&["c", "3"])));
        assert_eq!(read[3], (4, fields(&["d", "4"])));
    }

    #[test]
    fn a_quote_open_at_the_end_is_reported_where_it_begins() {
        let read = csv(b"\"a\nb\nc");
        let reason = read[0].1.as_ref().unwrap_err();
        assert_eq!((read[0].0, reason.contains("never closed")), (1, true));
        assert_eq!(read[1..], [(2, fields(&["b"])), (3, fields(&["c"]))]);
    }

    #[test]
    fn text_behind_a_closing_quote_is_refused() {
        let read = csv(b"a,\"b\"c\n");
        let reason = read[0].1.as_ref().unwrap_err();
        assert!(reason.contains("'c' after the closing quote of field 2"), "{reason}");
    }

    #[test]
    fn a_quote_inside_a_field_is_ordinary_and_so_is_any_without_quoting() {
        assert_eq!(csv(b"5\" disk,x"), [(1, fields(&["5\" disk", "x"]))]);
        let plain = Splitter::new(b',', false);
        assert_eq!(records(b"\"a,b\"", plain), [(1, fields(&["\"a", "b\""]))]);
    }

    #[test]
    fn a_line_that_is_no_text_is_reported_and_skipped() {
        let read = csv(b"a\n\xff\n\"b\n\xfe\nc\n");
        let places: Vec<(u64, bool)> = read.iter().map(|(line, r)| (*line, r.is_ok())).collect();
        assert_eq!(places, [(1, true), (2, false), (3, false), (4, false), (5, true)]);
    }

    #[test]
    fn text_behind_a_quote_that_closes_on_a_later_line_is_refused() {
        let read = csv(b"a,\"one\n\"\"two\"\" \"x,\"y\nb,2\n\"\n\"z\"\"\"z\n");
        let reason = read[0].1.as_ref().unwrap_err();
        assert_eq!(
            reason,
            "bad quoting: a quote opened here reaches line 2: 'x' after the closing quote of field 2"
        );
        let reason = read[1].1.as_ref().unwrap_err();
        assert_eq!((read[1].0, &**reason), (2, "bad quoting: 't' after the closing quote of field 1"));
        assert_eq!(read[2], (3, fields(&["b", "2"])));
        let reason = read[3].1.as_ref().unwrap_err();
        assert!(reason.contains("reaches line 5: 'z' after"), "{reason}");
        let reason = read[4].1.as_ref().unwrap_err();
        assert_eq!((read[4].0, &**reason), (5, "bad quoting: 'z' after the closing quote of field 1"));
    }

    #[test]
    fn a_field_of_quotes_is_told_from_text_behind_a_quote() {
        let read = csv(b"\"\"\"\",\"\"\"x\"\"\",\"\"\n\"\"\"\"\"\n\"\"x\n");
        assert_eq!(read[0], (1, fields(&["\"", "\"x\"", ""])));
        // Five quotes open a field that begins with two.
        assert!(read[1].1.as_ref().unwrap_err().contains("never closed"), "{:?}", read[1]);
        assert!(read[2].1.as_ref().unwrap_err().contains("'x' after the closing quote"), "{:?}", read[2]);
    }

    #[test]
    fn a_carriage_return_that_ends_no_line_is_ordinary() {
        let read = csv(b"a\rb,\"c\rd\"\r\ne,\rf\r\n");
        assert_eq!(read, [(1, fields(&["a\rb", "c\rd"])), (2, fields(&["e", "\rf"]))]);
    }

    #[test]
    fn only_the_byte_order_mark_of_the_file_is_dropped() {
        let read = csv("\u{feff}\u{feff}a,b\n\"c\"d\n\u{feff}e,\u{feff}\n".as_bytes());
        assert_eq!(read[0], (1, fields(&["\u{feff}a", "b"])));
        assert_eq!(read[2], (3, fields(&["\u{feff}e", "\u{feff}"])));
        assert_eq!(csv("\u{feff}\"a,b\"".as_bytes()), [(1, fields(&["a,b"]))]);
    }

    #[test]
    fn blank_lines_separate_nothing_but_belong_to_a_quoted_field() {
        let read = csv(b"\n \t\na,\"b\n\n c\"\n\r\nd,\n");
        assert_eq!(read, [(3, fields(&["a", "b\n\n c"])), (7, fields(&["d", ""]))]);
    }

    #[test]
    fn a_malformed_record_leaves_nothing_to_the_next_one() {
        let read = csv(b"a,b,\"c\"d,\"e\nf,\"g\"\n\"h\nk\n");
        assert_eq!(read[1], (2, fields(&["f", "g"])));
        assert!(read[2].1.is_err(), "{:?}", read[2]);
        assert_eq!(read[3], (4, fields(&["k"])));
    }

    #[test]
    fn a_quote_that_stays_open_for_too_long_costs_one_record() {
        let line = "x".repeat(1 << 20);
        let text = format!("\"{}", format!("{line}\n").repeat(18));
        let read = csv(text.as_bytes());
        let reason = read[0].1.as_ref().unwrap_err();
        assert!(reason.contains("longer than 16 MiB"), "{reason}");
        assert_eq!(read.len(), 18);
        assert!(read[1..].iter().all(|(_, record)| record.as_ref().is_ok_and(|fields| *fields == [&*line])));
    }
}
