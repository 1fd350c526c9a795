//! The language of the shell. Each line is one command.

use super::words;

/// One command of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Shows the record of a key.
    Get(String),
    /// Lists the records whose keys begin with a prefix.
    Prefix(String, Option<usize>),
    /// Lists the records from one key to another, both included.
    Range(String, String, Option<usize>),
    /// Counts all records, or those whose keys begin with a prefix.
    Count(Option<String>),
    /// Shows the record with the least key.
    First,
    /// Shows the record with the greatest key.
    Last,
    /// Stores a value.
    Set(String, String),
    /// Removes a key.
    Delete(String),
    /// Opens a transaction.
    Begin,
    /// Makes the open transaction's changes permanent.
    Commit,
    /// Drops the open transaction's changes.
    Rollback,
    /// Sets a savepoint: a named point to roll back to.
    Savepoint(String),
    /// Drops the changes made since a savepoint.
    RollbackTo(String),
    /// Shows figures of the database.
    Stats,
    /// Lists the commands.
    Help,
    /// Ends the session.
    Quit,
}

/// The description of a command in `help`.
pub(crate) struct Usage {
    /// The word that selects the command.
    pub(crate) name: &'static str,
    /// The arguments of the command.
    pub(crate) arguments: &'static str,
    /// The effect of the command.
    pub(crate) meaning: &'static str,
    /// How many of the arguments, from the first, are keys or prefixes of keys.
    pub(crate) keys: usize,
}

const fn usage(name: &'static str, arguments: &'static str, keys: usize, meaning: &'static str) -> Usage {
    Usage { name, arguments, meaning, keys }
}

/// All commands, in the order of `help`.
pub(crate) const COMMANDS: [Usage; 15] = [
    usage("get", "KEY", 1, "the record of KEY"),
    usage("prefix", "P [LIMIT]", 1, "the records whose keys begin with P"),
    usage("range", "A B [LIMIT]", 2, "the records from key A to key B, both included"),
    usage("count", "[PREFIX]", 1, "the number of records, or of those whose keys begin with PREFIX"),
    usage("first", "", 0, "the record with the least key"),
    usage("last", "", 0, "the record with the greatest key"),
    usage("set", "KEY VALUE", 1, "store text, or the fields of a JSON object in single quotes, under KEY"),
    usage("del", "KEY", 1, "remove KEY"),
    usage("begin", "", 0, "open a transaction"),
    usage("commit", "", 0, "make the changes of the transaction permanent"),
    usage("rollback", "[to NAME]", 0, "drop the changes of the transaction, or those since NAME"),
    usage("savepoint", "NAME", 0, "name a point of the transaction to roll back to"),
    usage("stats", "", 0, "figures of the database and its memory"),
    usage("help", "", 0, "this list"),
    usage("quit", "", 0, "end the session; an open transaction is rolled back"),
];

/// Reads one line; `None` if it is blank or a `#` comment.
///
/// # Errors
///
/// If the line is not a command: the reason, as text for the user.
pub(crate) fn parse(line: &str) -> Result<Option<Command>, String> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let words = words::split(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((&name, arguments)) = words.split_first() else {
        return Ok(None);
    };
    let name = name.to_ascii_lowercase();
    let command = match (name.as_str(), arguments) {
        ("get", [key]) => Command::Get(key.to_string()),
        ("prefix", [prefix]) => Command::Prefix(prefix.to_string(), None),
        ("prefix", [prefix, limit]) => Command::Prefix(prefix.to_string(), parse_limit(limit)?),
        ("range", [from, to]) => Command::Range(from.to_string(), to.to_string(), None),
        ("range", [from, to, limit]) => Command::Range(from.to_string(), to.to_string(), parse_limit(limit)?),
        ("count", []) => Command::Count(None),
        ("count", [prefix]) => Command::Count(Some(prefix.to_string())),
        ("first", []) => Command::First,
        ("last", []) => Command::Last,
        ("set", [key, value]) => Command::Set(key.to_string(), value.to_string()),
        ("del", [key]) => Command::Delete(key.to_string()),
        ("begin", []) => Command::Begin,
        ("commit", []) => Command::Commit,
        ("rollback", []) => Command::Rollback,
        ("rollback", [to, name]) if to.eq_ignore_ascii_case("to") => Command::RollbackTo(name.to_string()),
        ("savepoint", [name]) => Command::Savepoint(name.to_string()),
        ("stats", []) => Command::Stats,
        ("help", []) => Command::Help,
        ("quit" | "exit", []) => Command::Quit,
        _ => return Err(misuse(&name, arguments.len())),
    };
    Ok(Some(command))
}

fn parse_limit(text: &str) -> Result<Option<usize>, String> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(format!("LIMIT must be a whole number from 1, not {text:?}")),
    }
}

/// The usage of `name`, or a message that there is no such command.
fn misuse(name: &str, given: usize) -> String {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return format!("unknown command {name:?}; help lists the commands");
    };
    let usage = format!("{name} {}", command.arguments);
    let mut message = format!("usage: {}", usage.trim_end());
    if given > command.arguments.split_whitespace().count() && !command.arguments.is_empty() {
        message.push_str(" (put a key or value with spaces in quotes)");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        let text = |text: &str| text.to_owned();
        let cases = [
            ("get 03B1", Command::Get(text("03B1"))),
            ("prefix \"GREEK SMALL\" 3", Command::Prefix(text("GREEK SMALL"), Some(3))),
            ("prefix ''", Command::Prefix(text(""), None)),
            ("range a b", Command::Range(text("a"), text("b"), None)),
            ("range a b 7", Command::Range(text("a"), text("b"), Some(7))),
            ("count", Command::Count(None)),
            ("COUNT x", Command::Count(Some(text("x")))),
            ("set k 'a b'", Command::Set(text("k"), text("a b"))),
            ("del k", Command::Delete(text("k"))),
            ("rollback", Command::Rollback),
            ("rollback to here", Command::RollbackTo(text("here"))),
            ("savepoint here", Command::Savepoint(text("here"))),
            ("exit", Command::Quit),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), Ok(Some(expected)), "{line}");
        }
    }

    #[test]
    fn blank_lines_and_comments_ask_for_nothing() {
        for line in ["", "   ", "# get a", "  #"] {
            assert_eq!(parse(line), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn misuse_is_explained() {
        let cases = [
            ("fetch a", "unknown command \"fetch\""),
            ("get", "usage: get KEY"),
            ("get a b", "in quotes"),
            ("begin now", "usage: begin"),
            ("rollback from x", "usage: rollback [to NAME]"),
            ("prefix a 0", "LIMIT must be"),
            ("range a b -1", "LIMIT must be"),
            ("get \"a", "unbalanced quote"),
        ];
        for (line, expected) in cases {
            let message = parse(line).expect_err(line);
            assert!(message.contains(expected), "{line}: {message}");
        }
    }

    #[test]
    fn every_listed_command_can_be_parsed() {
        for command in &COMMANDS {
            let arguments = command.arguments.split_whitespace().filter(|a| !a.starts_with('['));
            let arguments = arguments.filter(|argument| !argument.ends_with(']'));
            let line = format!("{} {}", command.name, arguments.collect::<Vec<_>>().join(" "));
            assert!(matches!(parse(&line), Ok(Some(_))), "{line}");
        }
    }
}
