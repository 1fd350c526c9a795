//! Guesses the format of a file from its name and its first line.

use std::path::Path;

/// The format of the records of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object per line.
    JsonLines,
    /// Fields separated by this ASCII character.
    Delimited(u8),
}

/// Reads the value of `--delimiter`.
pub(super) fn parse_delimiter(text: &str) -> Result<u8, String> {
    let byte = match text.to_ascii_lowercase().as_str() {
        "tab" | "\\t" => b'\t',
        "comma" => b',',
        "semicolon" => b';',
        "pipe" => b'|',
        "space" => b' ',
        _ => match text.as_bytes() {
            &[byte] if byte.is_ascii() => byte,
            _ => return Err("give one ASCII character, or tab, comma, semicolon or pipe".into()),
        },
    };
    if matches!(byte, b'"' | b'\n' | b'\r') {
        return Err("a quote or the end of a line cannot separate fields".into());
    }
    Ok(byte)
}

/// Guesses from the name of the file and its first line whether the records are JSON.
pub(super) fn looks_like_json(path: &Path, first_line: &str) -> bool {
    match extension(path).as_str() {
        "jsonl" | "ndjson" | "json" => true,
        "csv" | "tsv" | "tab" => false,
        _ => first_line.trim_start().starts_with('{'),
    }
}

/// Guesses the delimiter: the candidate that occurs most often outside of quotes in the first line. In a
/// tie, the extension decides.
pub(super) fn guess_delimiter(path: &Path, first_line: &str) -> u8 {
    let candidates: [u8; 4] = match extension(path).as_str() {
        "tsv" | "tab" => [b'\t', b',', b';', b'|'],
        _ => [b',', b'\t', b';', b'|'],
    };
    let mut counts = [0_usize; 4];
    let mut in_quotes = false;
    for byte in first_line.bytes() {
        in_quotes ^= byte == b'"';
        if let Some(place) = candidates.iter().position(|&candidate| candidate == byte)
            && !in_quotes
        {
            counts[place] += 1;
        }
    }
    // Ordinary text contains no tabs, so in a `.tsv` or `.tab` file one tab is enough.
    if candidates[0] == b'\t' && counts[0] > 0 {
        return b'\t';
    }
    let mut best = 0;
    for place in 1..candidates.len() {
        if counts[place] > counts[best] {
            best = place;
        }
    }
    candidates[best]
}

/// The delimiter as a person would write it.
pub(super) fn describe(delimiter: u8) -> String {
    match delimiter {
        b'\t' => "tab".to_owned(),
        b' ' => "space".to_owned(),
        other => format!("{:?}", char::from(other)),
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_candidate_is_the_delimiter() {
        let cases = [
            ("a.txt", "0000;<control>;Cc;0;BN;;;;;N;NULL;;;;", b';'),
            ("a.csv", "code,name,capital", b','),
            ("a.csv", "code;name;price, net", b';'),
            ("a.csv", "\"a;b;c;d\",x", b','),
            ("a.txt", "one\ttwo, three\tfour", b'\t'),
            ("a.tsv", "name, first\tname, last, other", b'\t'),
            ("a.tsv", "name,age", b','),
            ("a.txt", "root|x|0", b'|'),
            ("a.csv", "single", b','),
            ("a.tsv", "single", b'\t'),
            ("-", "a,b;c", b','),
        ];
        for (path, line, expected) in cases {
            assert_eq!(guess_delimiter(Path::new(path), line), expected, "{path}: {line}");
        }
    }

    #[test]
    fn json_is_known_by_name_or_by_its_first_character() {
        assert!(looks_like_json(Path::new("a.JSONL"), ""));
        assert!(looks_like_json(Path::new("a.log"), "  {\"a\":1}"));
        assert!(looks_like_json(Path::new("-"), "{}"));
        assert!(!looks_like_json(Path::new("a.csv"), "{a},{b}"));
        assert!(!looks_like_json(Path::new("a.txt"), "a;b"));
    }

    #[test]
    fn delimiters_have_names() {
        assert_eq!(parse_delimiter("tab"), Ok(b'\t'));
        assert_eq!(parse_delimiter("Semicolon"), Ok(b';'));
        assert_eq!(parse_delimiter(":"), Ok(b':'));
        for text in ["", "::", "é", "\"", "\n"] {
            assert!(parse_delimiter(text).is_err(), "{text:?}");
        }
    }
}
