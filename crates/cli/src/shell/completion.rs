//! Completion by the Tab key. It offers command names for the first word, and keys or the names of
//! savepoints for the words after it.

use super::command::COMMANDS;
use super::session::Session;
use super::words::{self, Word};

/// The most keys to offer at once, not counting the greatest key.
const OFFERED: usize = 60;

/// The byte where the replaced text starts, and the offers that may replace it.
///
/// The editor inserts the common prefix of all offers. If there are too many keys to offer, the greatest
/// key must be among the offers: keys are sorted, so a prefix that the first and the last key share is
/// shared by all. Without it the editor might insert a prefix that some matching keys do not have.
pub(crate) fn complete(session: &Session, typed: &str) -> (usize, Vec<String>) {
    let mut words = words::scan(typed);
    let last = take_last(&mut words, typed);
    let Some(command) = words.first() else {
        let names = COMMANDS.iter().map(|command| command.name);
        let offers = names.filter(|name| name.starts_with(&last.text));
        return (last.start, offers.map(|name| format!("{name} ")).collect());
    };
    let name = command.text.to_ascii_lowercase();
    if name == "rollback" {
        let offers = match words.len() {
            1 => quoted(&last, vec!["to".to_owned()]),
            2 => quoted(&last, session.savepoint_names().map(str::to_owned).collect()),
            _ => Vec::new(),
        };
        return (last.start, offers);
    }
    let takes_key = COMMANDS.iter().any(|known| known.name == name && words.len() <= known.keys);
    if !takes_key {
        return (last.start, Vec::new());
    }
    // If the keys cannot be read, offer none: an error message would disturb the line being typed.
    let (mut keys, greatest) = session.keys_around(&last.text, OFFERED).unwrap_or_default();
    keys.extend(greatest);
    (last.start, quoted(&last, keys))
}

/// Removes and returns the word that is being typed: the last one, or an empty one after a space.
fn take_last(words: &mut Vec<Word>, typed: &str) -> Word {
    let open = match words.last() {
        Some(word) if word.quote.is_some() => word.problem.is_some(),
        Some(_) => !typed.ends_with(char::is_whitespace),
        None => false,
    };
    let fresh = Word { start: typed.len(), text: String::new(), quote: None, problem: None };
    if open { words.pop().unwrap_or(fresh) } else { fresh }
}

/// The offers that continue `word`. If one of them needs quotes, all are quoted, so that the quote is part
/// of their common prefix.
fn quoted(word: &Word, offers: Vec<String>) -> Vec<String> {
    let matching: Vec<String> = offers.into_iter().filter(|offer| offer.starts_with(&word.text)).collect();
    let quotes = word.quote.is_some() || matching.iter().any(|offer| words::needs_quotes(offer));
    let quoted = matching.into_iter().map(|offer| match quotes {
        true => words::quote(&offer),
        false => offer,
    });
    quoted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use crate::record::Record;
    use crate::shell::command::parse;

    async fn session(keys: &[&str]) -> Session {
        let db = fluxmap::Database::new_in_memory().await.unwrap();
        let tx = db.begin();
        for key in keys {
            tx.insert(key.to_string(), Record::typed("x")).unwrap();
        }
        tx.commit().await.unwrap();
        Session::new(db, None)
    }

    #[tokio::test]
    async fn the_first_word_is_a_command() {
        let session = session(&[]).await;
        assert_eq!(complete(&session, "pre"), (0, vec!["prefix ".to_owned()]));
        assert_eq!(complete(&session, " co").1, ["count ", "commit "]);
        assert_eq!(complete(&session, "").1.len(), COMMANDS.len());
    }

    #[tokio::test]
    async fn keys_are_offered_by_prefix_with_quotes_where_one_needs_them() {
        let session = session(&["GREEK", "GREEK SMALL", "GURMUKHI", "03B1"]).await;
        assert_eq!(complete(&session, "get GU"), (4, vec!["GURMUKHI".to_owned()]));
        assert_eq!(complete(&session, "get GR"), (4, vec!["\"GREEK\"".into(), "\"GREEK SMALL\"".into()]));
        assert_eq!(complete(&session, "get \"GREEK S").1, ["\"GREEK SMALL\""]);
        assert_eq!(complete(&session, "range 03B1 GU"), (11, vec!["GURMUKHI".to_owned()]));
        assert_eq!(complete(&session, "get 03B1 ").1, [""; 0]);
        assert_eq!(complete(&session, "stats 0").1, [""; 0]);
    }

    #[tokio::test]
    async fn the_greatest_key_is_offered_when_there_are_too_many() {
        let keys: Vec<String> = (0..500).map(|number| format!("k{number:03}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let session = session(&keys).await;
        let (_, offers) = complete(&session, "get k");
        assert_eq!(offers.len(), OFFERED + 1);
        assert_eq!(offers.last().map(String::as_str), Some("k499"));
    }

    #[tokio::test]
    async fn savepoints_are_offered_after_rollback_to() {
        let mut session = session(&[]).await;
        let mut out = Output::to(std::io::sink(), true);
        for line in ["begin", "savepoint here", "savepoint there"] {
            session.execute(parse(line).unwrap().unwrap(), &mut out).await.unwrap();
        }
        assert_eq!(complete(&session, "rollback ").1, ["to"]);
        assert_eq!(complete(&session, "rollback to h").1, ["here"]);
        assert_eq!(complete(&session, "rollback to ").1, ["here", "there"]);
    }
}
