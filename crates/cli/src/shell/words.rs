//! Splits a query line into words, and quotes a text so that it is read as one word.
//!
//! Words are separated by white space. A word in `"..."` or `'...'` may contain spaces. Inside double
//! quotes and in bare words, a backslash makes the next character ordinary, and `\n`, `\r`, `\t` and
//! `\u{...}` have the meaning that they have in Rust. Single quotes take everything literally, which
//! suits JSON. A double quote inside a bare word is an error, since its meaning would be a guess.

use std::iter::Peekable;
use std::str::CharIndices;

/// A word and its position, as far as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// The byte where the word, or the quote that opens it, begins.
    pub(crate) start: usize,
    /// The text after quotes and escapes are resolved.
    pub(crate) text: String,
    /// The quote that opened the word.
    pub(crate) quote: Option<char>,
    /// The syntax error in the word, if any. The text then holds the part that was understood.
    pub(crate) problem: Option<String>,
}

/// The words of `line`.
///
/// # Errors
///
/// The syntax error of the first malformed word: a quote left open, text directly after a closing quote,
/// or an unknown escape.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let scanned = scan(line);
    if let Some(problem) = scanned.iter().find_map(|word| word.problem.clone()) {
        return Err(problem);
    }
    Ok(scanned.into_iter().map(|word| word.text).collect())
}

/// The words of `line`, including malformed ones.
pub(crate) fn scan(line: &str) -> Vec<Word> {
    let mut chars = line.char_indices().peekable();
    let mut words = Vec::new();
    while let Some(&(start, c)) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        words.push(match c {
            '"' | '\'' => quoted_word(&mut chars, start, c),
            _ => bare_word(&mut chars, start),
        });
    }
    words
}

type Chars<'line> = Peekable<CharIndices<'line>>;

fn quoted_word(chars: &mut Chars<'_>, start: usize, quote: char) -> Word {
    chars.next();
    let mut word = Word { start, text: String::new(), quote: Some(quote), problem: None };
    loop {
        match chars.next() {
            None => {
                let place = start + 1;
                word.set_problem(format!("unbalanced quote: the {quote} at character {place} is not closed"));
                return word;
            }
            Some((_, c)) if c == quote => break,
            Some((_, '\\')) if quote == '"' => word.push_escaped(chars),
            Some((_, c)) => word.text.push(c),
        }
    }
    if let Some(&(_, next)) = chars.peek()
        && !next.is_whitespace()
    {
        word.set_problem(format!("a space is missing between the closing {quote} and {next:?}"));
        skip_word(chars);
    }
    word
}

fn bare_word(chars: &mut Chars<'_>, start: usize) -> Word {
    let mut word = Word { start, text: String::new(), quote: None, problem: None };
    while let Some((_, c)) = chars.next_if(|(_, c)| !c.is_whitespace()) {
        match c {
            '\\' => word.push_escaped(chars),
            '"' => {
                word.set_problem(format!(
                    "a quote inside the word {:?}: quote the whole word, or write \\\"",
                    word.text
                ));
                skip_word(chars);
            }
            _ => word.text.push(c),
        }
    }
    word
}

fn skip_word(chars: &mut Chars<'_>) {
    while chars.next_if(|(_, c)| !c.is_whitespace()).is_some() {}
}

impl Word {
    /// Sets the problem unless there is one: later problems may be consequences of the first.
    fn set_problem(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    fn push_escaped(&mut self, chars: &mut Chars<'_>) {
        match chars.next() {
            None => self.set_problem("the line ends in a lone backslash: write \\\\".to_owned()),
            Some((_, 'n')) => self.text.push('\n'),
            Some((_, 'r')) => self.text.push('\r'),
            Some((_, 't')) => self.text.push('\t'),
            Some((_, 'u')) => match code_point(chars) {
                Some(c) => self.text.push(c),
                None => self.set_problem("\\u must be followed by {HEX}, as in \\u{3B1}".into()),
            },
            Some((_, c)) if c.is_alphanumeric() => {
                self.set_problem(format!("\\{c} means nothing: \\\\ is a backslash"));
            }
            Some((_, c)) => self.text.push(c),
        }
    }
}

/// Reads the part of `\u{3B1}` after the `u`.
fn code_point(chars: &mut Chars<'_>) -> Option<char> {
    chars.next_if(|(_, c)| *c == '{')?;
    let mut code = 0_u32;
    let mut digits = 0;
    while let Some((_, c)) = chars.next_if(|(_, c)| c.is_ascii_hexdigit()) {
        digits += 1;
        if digits > 6 {
            return None;
        }
        code = code * 16 + c.to_digit(16)?;
    }
    chars.next_if(|(_, c)| *c == '}')?;
    if digits == 0 { None } else { char::from_u32(code) }
}

/// `text` in double quotes, so that [`split`] reads it back as one word.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether [`split`] would not read `text` as one word without quotes.
pub(crate) fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text.starts_with('\'')
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_white_space() {
        assert_eq!(split("  get  03B1\t").unwrap(), ["get", "03B1"]);
        assert_eq!(split("").unwrap(), [""; 0]);
    }

    #[test]
    fn quotes_hold_spaces() {
        assert_eq!(split(r#"prefix "GREEK SMALL" 3"#).unwrap(), ["prefix", "GREEK SMALL", "3"]);
        assert_eq!(split(r#"set k '{"a": 1}'"#).unwrap(), ["set", "k", r#"{"a": 1}"#]);
        assert_eq!(split(r#"set "" ''"#).unwrap(), ["set", "", ""]);
        assert_eq!(split("get O'Brien").unwrap(), ["get", "O'Brien"]);
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(split(r#""a\"b\\c\td\u{3B1}""#).unwrap(), ["a\"b\\c\td\u{3b1}"]);
        assert_eq!(split(r"a\ b").unwrap(), ["a b"]);
        assert_eq!(split(r"'a\b'").unwrap(), [r"a\b"]);
    }

    #[test]
    fn what_is_not_a_word_is_an_error() {
        let cases = [
            (r#"get "GREEK"#, "unbalanced quote: the \" at character 5"),
            ("get 'GREEK", "unbalanced quote: the ' at character 5"),
            (r#"get "GREEK"SMALL"#, "a space is missing"),
            (r#"get GRE"EK"#, "a quote inside the word \"GRE\""),
            (r"get a\", "lone backslash"),
            (r"get a\q", r"\q means nothing"),
            (r"get \u{110000}", "must be followed by"),
            (r"get \u{}", "must be followed by"),
            (r"get \u{0000041}", "must be followed by"),
        ];
        for (line, expected) in cases {
            let problem = split(line).expect_err(line);
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }

    #[test]
    fn an_unfinished_word_keeps_its_text_and_place() {
        let words = scan(r#"prefix "GREEK SM"#);
        assert_eq!(words[1].start, 7);
        assert_eq!(words[1].text, "GREEK SM");
        assert!(words[1].problem.is_some());
    }

    #[test]
    fn quoting_is_undone_by_splitting() {
        for text in ["", "a b", "a\"b", "back\\slash", "tab\there", "nul\0", "'x'", "\u{85}"] {
            assert!(needs_quotes(text), "{text:?}");
            assert_eq!(split(&quote(text)).unwrap(), [text]);
        }
        for text in ["03B1", "<control>", "O'Brien", "α"] {
            assert!(!needs_quotes(text), "{text:?}");
            assert_eq!(split(text).unwrap(), [text]);
        }
    }
}
