//! One stored record: its fields in the order of the file, and its form as text and as JSON.
//!
//! On disk a record is the JSON value that [`Record::to_json`] returns, so another program can open the
//! database with `serde_json::Value` as the value type.
//!
//! As text, a record takes one line whatever it contains: a field that would be ambiguous is quoted in
//! the syntax that the shell reads.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::shell::words::quote;

/// The column names and the delimiter, which all rows of one delimited file share.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The names of the columns; `None` if the file has no header.
    pub(crate) names: Option<Vec<String>>,
    /// The character between two fields when a row without names is shown.
    pub(crate) delimiter: char,
}

/// A value of a database of records.
#[derive(Debug)]
pub(crate) enum Record {
    /// A row of a delimited file.
    Row {
        /// Shared by all rows of the file.
        layout: Arc<Layout>,
        /// The fields of the row: as many as the layout has names, if it has names.
        fields: Box<[Box<str>]>,
    },
    /// An object from a JSON Lines file, or one that a user typed.
    Object(Map<String, Value>),
    /// Plain text that a user typed.
    Text(Box<str>),
    /// Any other JSON value: a row without names that was read from disk, or a value that another program
    /// wrote.
    Other(Value),
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Row { .. } => self.to_json().serialize(serializer),
            Self::Object(members) => members.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Object(members) => Self::Object(members),
            Value::String(text) => Self::Text(text.into()),
            other => Self::Other(other),
        })
    }
}

impl Record {
    /// The record that `set` stores for `text`: an object if `text` is a JSON object, else the text itself.
    pub(crate) fn typed(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Self::Object(members),
            _ => Self::Text(text.into()),
        }
    }

    /// The record as JSON. A row is an object by column name, or an array if the columns have no names.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Row { layout, fields } => {
                let values = fields.iter().map(|field| Value::from(&**field));
                match &layout.names {
                    Some(names) => Value::Object(names.iter().cloned().zip(values).collect()),
                    None => Value::Array(values.collect()),
                }
            }
            Self::Object(members) => Value::Object(members.clone()),
            Self::Text(text) => Value::from(&**text),
            Self::Other(value) => value.clone(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { layout, fields } => match &layout.names {
                Some(names) => {
                    let pairs = names.iter().zip(fields).map(|(name, field)| pair(name, field));
                    write_joined(f, ' ', pairs)
                }
                None => {
                    let special = |c: char| c == layout.delimiter || c == '"' || c.is_control();
                    let shown = fields.iter().map(|field| match field.contains(special) {
                        true => quote(field),
                        false => field.to_string(),
                    });
                    write_joined(f, layout.delimiter, shown)
                }
            },
            Self::Object(members) => {
                let pairs = members.iter().map(|(name, value)| match value {
                    Value::String(text) => pair(name, text),
                    other => format!("{}={other}", plain_or_quoted(name)),
                });
                write_joined(f, ' ', pairs)
            }
            Self::Text(text) => f.write_str(&one_line(text)),
            Self::Other(value) => write!(f, "{value}"),
        }
    }
}

/// `name=value`.
fn pair(name: &str, value: &str) -> String {
    format!("{}={}", plain_or_quoted(name), plain_or_quoted(value))
}

/// Quotes `text` if a reader could not tell where it ends.
fn plain_or_quoted(text: &str) -> String {
    let special = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=';
    if text.contains(special) { quote(text) } else { text.to_owned() }
}

/// Quotes `text` if it contains a control character, such as a line break.
pub(crate) fn one_line(text: &str) -> String {
    if text.contains(char::is_control) { quote(text) } else { text.to_owned() }
}

fn write_joined(
    f: &mut fmt::Formatter<'_>,
    separator: char,
    parts: impl Iterator<Item = String>,
) -> fmt::Result {
    for (place, part) in parts.enumerate() {
        if place > 0 {
            fmt::Write::write_char(f, separator)?;
        }
        f.write_str(&part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(names: Option<&[&str]>, fields: &[&str]) -> Record {
        let names = names.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let layout = Arc::new(Layout { names, delimiter: ';' });
        Record::Row { layout, fields: fields.iter().map(|&field| field.into()).collect() }
    }

    #[test]
    fn a_row_without_names_is_shown_as_in_the_file() {
        let record = row(None, &["0041", "LATIN CAPITAL LETTER A", "", "a;b"]);
        assert_eq!(record.to_string(), "0041;LATIN CAPITAL LETTER A;;\"a;b\"");
        assert_eq!(record.to_json(), json!(["0041", "LATIN CAPITAL LETTER A", "", "a;b"]));
    }

    #[test]
    fn a_row_with_names_shows_them_in_order() {
        let record = row(Some(&["code", "name"]), &["NO", "Kingdom of Norway"]);
        assert_eq!(record.to_string(), "code=NO name=\"Kingdom of Norway\"");
        assert_eq!(record.to_json().to_string(), r#"{"code":"NO","name":"Kingdom of Norway"}"#);
    }

    #[test]
    fn a_record_stays_on_one_line() {
        for record in [row(None, &["a\nb"]), row(Some(&["x"]), &["a\nb"]), Record::typed("a\nb")] {
            assert!(!record.to_string().contains('\n'), "{record}");
            assert!(record.to_string().contains("\\n"), "{record}");
        }
    }

    #[test]
    fn a_record_comes_back_from_disk_as_the_json_that_it_is() {
        let records = [
            row(Some(&["code", "name"]), &["NO", "Norway"]),
            row(None, &["NO", "Norway"]),
            Record::typed(r#"{"b":1,"a":[null,1.5,{}]}"#),
            Record::typed("text"),
            Record::Other(json!(7)),
        ];
        for record in records {
            let mut bytes = Vec::new();
            let codec = fluxmap::codec::Codec::MessagePack;
            codec.encode(&record, &mut bytes).unwrap();
            codec.check::<Record>(&bytes).unwrap();
            let back: Record = codec.decode(&bytes).unwrap();
            assert_eq!(back.to_json().to_string(), record.to_json().to_string());
            assert_eq!(codec.decode::<Value>(&bytes).unwrap(), record.to_json());
        }
    }

    #[test]
    fn typed_json_objects_have_fields_and_anything_else_is_text() {
        let object = Record::typed(r#"{"b":1,"a":"x y"}"#);
        assert_eq!(object.to_string(), "b=1 a=\"x y\"");
        assert_eq!(Record::typed("12").to_json(), json!("12"));
        assert_eq!(Record::typed("{broken").to_string(), "{broken");
    }
}
