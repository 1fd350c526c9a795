//! Tests of the codecs: which types they give back, which they refuse, and how they treat bytes
//! that no codec wrote.

mod hostile;
mod matrix;
mod shape;
mod types;

/// The table of types in the documentation must state the actual outcomes.
#[test]
fn the_table_in_the_documentation_is_true() {
    let documented: Vec<&str> = include_str!("../../../src/codec.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with('|'))
        .collect();
    let mut table = vec!["| type | MessagePack | Postcard |".to_string(), "|---|---|---|".to_string()];
    for row in matrix::rows() {
        let [message_pack, postcard] = row.outcomes;
        table.push(format!("| {} | {message_pack} | {postcard} |", row.name));
    }
    let expected: String = table.iter().map(|line| format!("//! {line}\n")).collect();
    assert!(documented == table, "the table in src/codec.rs should be:\n{expected}");
}
