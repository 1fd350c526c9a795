//! Reads the records of a file. Each is either a record with its key, or malformed with line and reason.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::delimited::Splitter;
use super::format::{Format, describe, guess_delimiter, looks_like_json};
use super::lines::Lines;
use crate::output::counted;
use crate::record::{Layout, Record};

/// The format of a file as far as the user gives it. The rest is guessed from the file.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadOptions {
    /// Whether the file is JSON Lines and not delimited; `None` to guess.
    pub(super) json: Option<bool>,
    /// The separator of fields in delimited records; `None` to guess.
    pub(super) delimiter: Option<u8>,
    /// Whether `"` is an ordinary character.
    pub(super) no_quotes: bool,
    /// Whether the first record of a delimited file holds data, not column names.
    pub(super) no_header: bool,
    /// The name or number of the key column; `None` for the first column.
    pub(super) key: Option<String>,
}

/// A record, its key, and its line.
#[derive(Debug)]
pub(super) struct Entry {
    /// The number of the record's first line.
    pub(super) line: u64,
    /// The text of the key field.
    pub(super) key: String,
    /// All fields, the key field included.
    pub(super) record: Record,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The number of the record's first line.
    pub(super) line: u64,
    /// The reason why the record cannot be used.
    pub(super) reason: String,
}

/// Reads the records of a file in order.
pub(super) struct Records<R> {
    lines: Lines<R>,
    shape: Shape,
}

/// The form that every record of this file must have.
enum Shape {
    /// JSON objects that have the member `key`. If no key was given, it is the first member of the first
    /// object.
    Json { key: Option<String> },
    /// Rows that have as many fields as the header or the first row.
    Rows { splitter: Box<Splitter>, layout: Arc<Layout>, key: usize, width: Option<usize> },
}

impl<R: BufRead> Records<R> {
    /// Looks at the first line of `reader`, which came from `path`, and reads the header.
    ///
    /// # Errors
    ///
    /// If the first line cannot be read, or the file has no such key column.
    pub(super) fn open(reader: R, path: &Path, options: &ReadOptions) -> anyhow::Result<Self> {
        let mut lines = Lines::new(reader);
        let first = lines.next_filled().context(CANNOT_READ)?;
        let first_line = first.as_ref().and_then(|line| line.text().ok()).unwrap_or_default();
        let json =
            options.json.unwrap_or_else(|| options.delimiter.is_none() && looks_like_json(path, first_line));
        let format = match (json, options.delimiter) {
            (true, _) => Format::JsonLines,
            (false, Some(delimiter)) => Format::Delimited(delimiter),
            (false, None) => Format::Delimited(guess_delimiter(path, first_line)),
        };
        lines.give_back(first.into_iter());
        let shape = match format {
            Format::JsonLines => Shape::Json { key: options.key.clone() },
            Format::Delimited(delimiter) => {
                let splitter = Box::new(Splitter::new(delimiter, !options.no_quotes));
                if options.no_header {
                    rows_without_names(splitter, options.key.as_deref())?
                } else {
                    rows_with_names(&mut lines, splitter, options.key.as_deref())?
                }
            }
        };
        Ok(Self { lines, shape })
    }

    /// The next record, good or malformed.
    ///
    /// # Errors
    ///
    /// If no further record can be read at all.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Result<Entry, Malformed>>> {
        match &mut self.shape {
            Shape::Json { key } => {
                let Some(line) = self.lines.next_filled().context(CANNOT_READ)? else {
                    return Ok(None);
                };
                let parsed = line.text().and_then(|text| parse_object(text, key));
                Ok(Some(at_line(line.number, parsed)))
            }
            Shape::Rows { splitter, layout, key, width } => {
                let read = splitter.next_record(&mut self.lines);
                let Some((line, split)) = read.context(CANNOT_READ)? else { return Ok(None) };
                // Without a header, the first good row sets the number of fields for all others.
                if let (None, Ok(fields)) = (&width, &split) {
                    check_key(*key, fields.len())?;
                    *width = Some(fields.len());
                }
                let parsed = split.and_then(|fields| parse_row(fields, *key, *width, layout));
                Ok(Some(at_line(line, parsed)))
            }
        }
    }

    /// A short description of the format that was given or guessed.
    pub(super) fn describe(&self) -> String {
        match &self.shape {
            Shape::Json { key: Some(key) } => format!("JSON Lines, key {key:?}"),
            Shape::Json { key: None } => "JSON Lines".to_owned(),
            Shape::Rows { splitter, layout, key, width } => {
                let Some(width) = width.filter(|width| *width > 0) else {
                    return "empty".to_owned();
                };
                let columns = counted(width as u64, "column");
                let delimiter = describe(splitter.delimiter());
                let key = key + 1;
                // List the names, so that a user notices if a record was mistaken for the header.
                let names = match &layout.names {
                    Some(names) if names.len() > NAMES_SHOWN => {
                        format!("named {}, ...", names[..NAMES_SHOWN].join(", "))
                    }
                    Some(names) => format!("named {}", names.join(", ")),
                    None => "without names".to_owned(),
                };
                format!("{columns} separated by {delimiter}, {names}; key: column {key}")
            }
        }
    }
}

/// How many column names a description lists.
const NAMES_SHOWN: usize = 5;

const CANNOT_READ: &str = "cannot read the records";

fn at_line(line: u64, parsed: Result<(String, Record), String>) -> Result<Entry, Malformed> {
    match parsed {
        Ok((key, record)) => Ok(Entry { line, key, record }),
        Err(reason) => Err(Malformed { line, reason }),
    }
}

fn rows_without_names(splitter: Box<Splitter>, key: Option<&str>) -> anyhow::Result<Shape> {
    let number = match key.map(str::parse::<usize>) {
        None => 1,
        Some(Ok(number)) if number > 0 => number,
        Some(_) => bail!(
            "--key {:?}: a file without a header has numbered columns, the first one is 1",
            key.unwrap_or_default()
        ),
    };
    let layout = Layout { names: None, delimiter: char::from(splitter.delimiter()) };
    Ok(Shape::Rows { splitter, layout: Arc::new(layout), key: number - 1, width: None })
}

fn rows_with_names<R: BufRead>(
    lines: &mut Lines<R>,
    mut splitter: Box<Splitter>,
    key: Option<&str>,
) -> anyhow::Result<Shape> {
    let header = splitter.next_record(lines).context(CANNOT_READ)?;
    let names = match header {
        None => Vec::new(),
        Some((_, Ok(fields))) => distinct_names(&fields),
        Some((line, Err(reason))) => bail!("line {line}, the header: {reason}"),
    };
    let column = match key {
        None => 0,
        // A column may be named "2", so look for the name first, then for the number.
        Some(wanted) => match names.iter().position(|name| name == wanted) {
            Some(column) => column,
            None => match wanted.parse::<usize>() {
                Ok(number) if number > 0 => number - 1,
                _ => bail!("--key {wanted:?}: the columns are {}", names.join(", ")),
            },
        },
    };
    let width = names.len();
    if width > 0 {
        check_key(column, width)?;
    }
    let layout = Layout { names: Some(names), delimiter: char::from(splitter.delimiter()) };
    Ok(Shape::Rows { splitter, layout: Arc::new(layout), key: column, width: Some(width) })
}

fn check_key(key: usize, width: usize) -> anyhow::Result<()> {
    if key >= width {
        bail!("--key {}: the records have {width} columns", key + 1);
    }
    Ok(())
}

/// Makes the names of a header distinct. An empty name becomes `column_3`, a repeated one `name_2`.
fn distinct_names(fields: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(fields.len());
    for (place, field) in fields.iter().enumerate() {
        let name = match field.trim() {
            "" => format!("column_{}", place + 1),
            name => name.to_owned(),
        };
        let mut distinct = name.clone();
        let mut copy = 1;
        while names.contains(&distinct) {
            copy += 1;
            distinct = format!("{name}_{copy}");
        }
        names.push(distinct);
    }
    names
}

/// The key and the record of a row, which must have `width` fields.
fn parse_row(
    fields: Vec<String>,
    key: usize,
    width: Option<usize>,
    layout: &Arc<Layout>,
) -> Result<(String, Record), String> {
    if let Some(width) = width
        && fields.len() != width
    {
        let plural = if fields.len() == 1 { "field" } else { "fields" };
        return Err(format!("{} {plural} where {width} are expected", fields.len()));
    }
    match fields.get(key) {
        Some(text) if !text.is_empty() => {
            let text = text.clone();
            let fields = fields.into_iter().map(String::into_boxed_str).collect();
            Ok((text, Record::Row { layout: Arc::clone(layout), fields }))
        }
        _ => Err(format!("the key (field {}) is empty", key + 1)),
    }
}

/// The key and the record of one line of JSON. If `key` is `None`, the first good line sets it to its first
/// member, so that all records use the same one.
fn parse_object(text: &str, key: &mut Option<String>) -> Result<(String, Record), String> {
    let members: Map<String, Value> = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err("bad JSON: not an object".to_owned()),
        Err(error) => return Err(format!("bad JSON: {error}")),
    };
    let name = match key.as_deref() {
        Some(name) => name,
        None => members.keys().next().ok_or("the object has no fields")?,
    };
    let text = match members.get(name) {
        Some(Value::String(text)) if text.is_empty() => {
            return Err(format!("the key field {name:?} is empty"));
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        Some(_) => return Err(format!("the key field {name:?} is not text or a number")),
        None => return Err(format!("the key field {name:?} is missing")),
    };
    if key.is_none() {
        *key = Some(name.to_owned());
    }
    Ok((text, Record::Object(members)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `(line, key)` or `(line, reason)` for each record.
    fn read(text: &str, options: &ReadOptions) -> Vec<(u64, Result<String, String>)> {
        let mut records = Records::open(text.as_bytes(), Path::new("x.txt"), options).unwrap();
        let mut found = Vec::new();
        while let Some(record) = records.next().unwrap() {
            found.push(match record {
                Ok(entry) => (entry.line, Ok(entry.key)),
                Err(malformed) => (malformed.line, Err(malformed.reason)),
            });
        }
        found
    }

    fn refusal(text: &str, options: &ReadOptions) -> String {
        match Records::open(text.as_bytes(), Path::new("x.txt"), options) {
            Err(error) => format!("{error:#}"),
            Ok(mut records) => format!("{:#}", records.next().expect_err("not refused")),
        }
    }

    fn keyed(key: &str, no_header: bool) -> ReadOptions {
        ReadOptions { key: Some(key.to_owned()), no_header, ..ReadOptions::default() }
    }

    #[test]
    fn the_key_is_a_column_by_name_or_number() {
        let text = "code,name\nNO,Norway\n";
        for (key, expected) in [("code", "NO"), ("name", "Norway"), ("2", "Norway")] {
            assert_eq!(read(text, &keyed(key, false)), [(2, Ok(expected.to_owned()))]);
        }
        assert_eq!(read(text, &ReadOptions::default()), [(2, Ok("NO".to_owned()))]);
        let rows = read(text, &keyed("2", true));
        assert_eq!(rows, [(1, Ok("name".to_owned())), (2, Ok("Norway".to_owned()))]);
    }

    #[test]
    fn a_key_that_is_no_column_refuses_the_file() {
        let text = "code,name\nNO,Norway\n";
        assert!(refusal(text, &keyed("city", false)).contains("code, name"));
        assert!(refusal(text, &keyed("3", false)).contains("have 2 columns"));
        assert!(refusal(text, &keyed("0", false)).contains("code, name"));
        assert!(refusal(text, &keyed("code", true)).contains("numbered columns"));
        assert!(refusal(text, &keyed("3", true)).contains("have 2 columns"));
        assert!(refusal(text, &keyed("0", true)).contains("numbered columns"));
    }

    #[test]
    fn rows_that_differ_from_the_first_are_malformed() {
        let rows = read("a;b\n1;2\n3\n;4\n5;6;7\n", &ReadOptions::default());
        let reasons: Vec<(u64, Option<&str>)> =
            rows.iter().map(|(line, row)| (*line, row.as_ref().err().map(String::as_str))).collect();
        let expected = [
            (2, None),
            (3, Some("1 field where 2 are expected")),
            (4, Some("the key (field 1) is empty")),
            (5, Some("3 fields where 2 are expected")),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn json_lines_have_a_key_member() {
        let text = "{\"id\":7,\"n\":\"x\"}\nnonsense\n[1]\n{\"n\":\"y\"}\n{\"id\":null}\n{\"id\":\"\"}\n{\"id\":\"z\"}\n";
        let rows = read(text, &ReadOptions::default());
        assert_eq!(rows[0], (1, Ok("7".to_owned())));
        let expected = ["bad JSON: expected", "not an object", "is missing", "not text", "is empty"];
        for ((place, (line, row)), reason) in rows[1..6].iter().enumerate().zip(expected) {
            assert_eq!(*line, place as u64 + 2);
            assert!(row.as_ref().unwrap_err().contains(reason), "{row:?}");
        }
        assert_eq!(rows[6], (7, Ok("z".to_owned())));
        assert_eq!(read("{\"id\":7,\"n\":\"x\"}", &keyed("n", false)), [(1, Ok("x".to_owned()))]);
    }

    #[test]
    fn names_are_distinct() {
        let fields = ["a", "", " a ", "a", "a_2"].map(str::to_owned);
        assert_eq!(distinct_names(&fields), ["a", "column_2", "a_2", "a_3", "a_2_2"]);
    }

    #[test]
    fn an_empty_file_has_no_records() {
        assert_eq!(read("", &ReadOptions::default()), []);
        assert_eq!(read("\n\n", &keyed("2", false)), []);
        assert_eq!(read("a,b\n", &ReadOptions::default()), []);
    }
}
