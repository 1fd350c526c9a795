//! Splits lines into the fields of CSV, TSV and their relatives (RFC 4180), strictly.
//!
//! A field that begins with `"` ends at the next `"` that is not doubled, even lines later. A quote inside
//! a field that does not begin with one is an ordinary character. Text after a closing quote and a quote
//! that is never closed are errors. Many readers accept both, but they usually mean that fields were
//! merged or lost.

use std::io::{self, BufRead};

use super::lines::{LONGEST, Lines};

/// The syntax that separates fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// An ASCII character other than a quote or the end of a line.
    pub(super) delimiter: u8,
    /// Whether `"` quotes a field.
    pub(super) quotes: bool,
}

/// A record: the number of its first line, and its fields or the reason why it is malformed.
pub(super) type Split = (u64, Result<Vec<String>, String>);

/// Reads the next record. If the record is malformed, its lines after the first are read again as separate
/// records, so that a stray quote costs only one record.
pub(super) fn next_record<R: BufRead>(lines: &mut Lines<R>, dialect: Dialect) -> io::Result<Option<Split>> {
    let Some(first) = lines.next_filled()? else { return Ok(None) };
    let number = first.number;
    let mut splitter = Splitter::new(dialect);
    let mut ahead = Vec::new();
    let mut size = first.bytes.len();
    let mut fed =
        first.text().and_then(|text| splitter.feed(text).map_err(|reason| format!("bad quoting: {reason}")));
    loop {
        match fed {
            Ok(true) => return Ok(Some((number, Ok(splitter.finish())))),
            // A stray quote may open a field that reaches the end of the file: do not keep all of it
            // in memory.
            Ok(false) if size > LONGEST => {
                fed = Err(format!("a quoted field is longer than {} MiB", LONGEST >> 20));
            }
            Ok(false) => match lines.next()? {
                Some(line) => {
                    size += line.bytes.len() + 1;
                    fed = line.text().and_then(|text| splitter.feed(text)).map_err(|reason| {
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

/// The position of the splitter in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first character of the field.
    Start,
    /// In a field without quotes.
    Bare,
    /// After the opening quote.
    Quoted,
    /// After a quote. It closes the field, unless another quote follows.
    Closed,
}

/// Splits one record into fields, line by line.
struct Splitter {
    dialect: Dialect,
    fields: Vec<String>,
    field: String,
    place: Place,
}

impl Splitter {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, fields: Vec::new(), field: String::new(), place: Place::Start }
    }

    /// Reads the next line. Returns whether the record ends with this line.
    fn feed(&mut self, line: &str) -> Result<bool, String> {
        if self.place == Place::Quoted {
            self.field.push('\n');
        }
        for c in line.chars() {
            self.take(c)?;
        }
        Ok(self.place != Place::Quoted)
    }

    fn take(&mut self, c: char) -> Result<(), String> {
        let delimits = c == char::from(self.dialect.delimiter);
        self.place = match self.place {
            Place::Quoted if c == '"' => Place::Closed,
            Place::Quoted => {
                self.field.push(c);
                Place::Quoted
            }
            _ if delimits => {
                self.fields.push(std::mem::take(&mut self.field));
                Place::Start
            }
            Place::Closed if c == '"' => {
                self.field.push('"');
                Place::Quoted
            }
            Place::Closed => {
                let field = self.fields.len() + 1;
                return Err(format!("{c:?} after the closing quote of field {field}"));
            }
            Place::Start if c == '"' && self.dialect.quotes => Place::Quoted,
            Place::Start | Place::Bare => {
                self.field.push(c);
                Place::Bare
            }
        };
        Ok(())
    }

    fn finish(mut self) -> Vec<String> {
        self.fields.push(self.field);
        self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: Dialect = Dialect { delimiter: b',', quotes: true };

    fn records(bytes: &[u8], dialect: Dialect) -> Vec<Split> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| next_record(&mut lines, dialect).unwrap()).collect()
    }

    fn fields(texts: &[&str]) -> Result<Vec<String>, String> {
        Ok(texts.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn fields_are_split_at_the_delimiter() {
        let read = records(b"a,b,c\r\n,,\nx\n", COMMA);
        let expected = [(1, fields(&["a", "b", "c"])), (2, fields(&["", "", ""])), (3, fields(&["x"]))];
        assert_eq!(read, expected);
        let semicolon = Dialect { delimiter: b';', quotes: true };
        assert_eq!(records(b"a,b;c", semicolon), [(1, fields(&["a,b", "c"]))]);
    }

    #[test]
    fn quoted_fields_hold_delimiters_quotes_and_lines() {
        let read = records(b"\"a,b\",\"say \"\"hi\"\"\",\"\"\n\"two\r\nlines\",x\nlast,y\n", COMMA);
        let expected = [
            (1, fields(&["a,b", "say \"hi\"", ""])),
            (2, fields(&["two\nlines", "x"])),
            (4, fields(&["last", "y"])),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_stray_quote_costs_one_record() {
        let read = records(b"a,1\nb,\"2\nc,3\nd,\"4\"\n", COMMA);
        assert_eq!(read.len(), 4);
        assert_eq!(read[0], (1, fields(&["a", "1"])));
        assert_eq!(read[1].0, 2);
        assert!(read[1].1.as_ref().unwrap_err().contains("bad quoting"));
        assert_eq!(read[2], (3, fields(&["c", "3"])));
        assert_eq!(read[3], (4, fields(&["d", "4"])));
    }

    #[test]
    fn a_quote_open_at_the_end_is_reported_where_it_begins() {
        let read = records(b"\"a\nb\nc", COMMA);
        let reason = read[0].1.as_ref().unwrap_err();
        assert_eq!((read[0].0, reason.contains("never closed")), (1, true));
        assert_eq!(read[1..], [(2, fields(&["b"])), (3, fields(&["c"]))]);
    }

    #[test]
    fn text_behind_a_closing_quote_is_refused() {
        let read = records(b"a,\"b\"c\n", COMMA);
        let reason = read[0].1.as_ref().unwrap_err();
        assert!(reason.contains("'c' after the closing quote of field 2"), "{reason}");
    }

    #[test]
    fn a_quote_inside_a_field_is_ordinary_and_so_is_any_without_quoting() {
        assert_eq!(records(b"5\" disk,x", COMMA), [(1, fields(&["5\" disk", "x"]))]);
        let plain = Dialect { delimiter: b',', quotes: false };
        assert_eq!(records(b"\"a,b\"", plain), [(1, fields(&["\"a", "b\""]))]);
    }

    #[test]
    fn a_line_that_is_no_text_is_reported_and_skipped() {
        let read = records(b"a\n\xff\n\"b\n\xfe\nc\n", COMMA);
        let places: Vec<(u64, bool)> = read.iter().map(|(line, r)| (*line, r.is_ok())).collect();
        assert_eq!(places, [(1, true), (2, false), (3, false), (4, false), (5, true)]);
    }
}
