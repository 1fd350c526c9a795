//! Rules for the source code that a test can check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All Rust sources below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The lines of a source file that are neither comments nor unit tests, with their numbers.
fn lines_of_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(all(test"));
    code.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// A model checker controls time and threads only if the code asks for them in one module, `sync`.
#[test]
fn clocks_sleeps_and_threads_are_asked_for_in_sync_only() {
    const ELSEWHERE: [&str; 5] =
        ["SystemTime::now", "std::time::Instant", "std::thread::s", "thread::sleep", "RandomState"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&root) {
        if path.starts_with(root.join("sync")) || path == root.join("sync.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source is text");
        for (number, line) in lines_of_code(&text) {
            let imports_instant = line.contains("use std::time::") && line.contains("Instant");
            // `mem/size.rs` names `Instant` to state its size, and reads no clock.
            let is_size = path.ends_with("mem/size.rs");
            if (imports_instant && !is_size) || ELSEWHERE.iter().any(|name| line.contains(name)) {
                wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "ask `crate::sync` for it:\n{}", wrong.join("\n"));
}

/// A driven database follows virtual time and can be replayed only if all code asks the database's
/// host.
#[test]
fn the_time_and_random_numbers_are_asked_of_the_host() {
    const ELSEWHERE: [&str; 4] = ["Instant::now", "system_time(", "sync::random", "hash_state(None"];
    const IMPORTED: [&str; 3] = ["random", "system_time", "hash_state"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let own = ["host.rs", "jobs.rs", "background.rs", "sync.rs"].map(|name| root.join(name));
    let mut wrong = Vec::new();
    for path in sources(&root) {
        if path.starts_with(root.join("sync")) || own.contains(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source is text");
        for (number, line) in lines_of_code(&text) {
            let imports = line.contains("use crate::sync") && IMPORTED.iter().any(|name| line.contains(name));
            if imports || ELSEWHERE.iter().any(|name| line.contains(name)) {
                wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "ask `crate::host` for it:\n{}", wrong.join("\n"));
}

/// The library's crates, whose modules use each other's types.
fn library() -> Vec<PathBuf> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = sources(&crates.join("fluxmap/src"));
    found.extend(sources(&crates.join("index/src")));
    found
}

/// The name of the type that a line at the top level of a module defines.
fn defined_type(line: &str) -> Option<&str> {
    if line.starts_with(' ') {
        return None;
    }
    let mut words = line.split([' ', '<', '(', ';', ':', '{']).filter(|word| !word.is_empty());
    if line.starts_with("pub") {
        let _visibility = words.next();
        if line.starts_with("pub(") {
            let _scope = words.next();
        }
    }
    let kind = words.next()?;
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
    words.next().filter(|_| is_type)
}

/// A reader who meets a name must not have to ask which type of that name is meant. `State` is excepted,
/// for what a lock guards and no other module sees, and so is the `Result` of a module.
#[test]
fn each_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in library() {
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source is text");
        for (number, line) in lines_of_code(&text) {
            if let Some(name) = defined_type(line).filter(|name| !["State", "Result"].contains(name)) {
                places.entry(name.to_owned()).or_default().push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(places.len() > 300, "only {} types were found", places.len());
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "rename all but one: {places:#?}");
}

/// Each file says at its top what it is for.
#[test]
fn each_file_opens_with_a_comment() {
    let is_silent = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source is text");
        !text.starts_with("//! ") && path.file_name().is_some_and(|name| name != "tests.rs")
    };
    let silent: Vec<PathBuf> = library().into_iter().filter(is_silent).collect();
    assert!(silent.is_empty(), "say what these are for: {silent:#?}");
}
