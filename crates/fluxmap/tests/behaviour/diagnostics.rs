//! The compiler's messages say what to do about mistakes that the types do not allow.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Programs that do not compile, and a part of the compiler's message about each.
const MISTAKES: [(&str, &str, &str); 11] = [
    (
        "no_mem_size",
        "struct Blob; fn main() { let _ = Database::<u64, Blob>::builder().max_memory(1); }",
        "needs to know what `Blob` takes: derive `fluxmap::mem::MemSize`",
    ),
    (
        "text_of_a_number",
        "fn main() {} fn f(db: Database<u64, u8>) { let _ = db.prefix(\"a\"); }",
        "`&str` is no prefix of `u64` keys",
    ),
    (
        "element_of_a_tuple",
        "fn main() {} fn f(db: Database<(u64, u32), u8>) { let _ = db.prefix(7); }",
        "is no prefix of `(u64, u32)` keys",
    ),
    (
        "bytes_of_text",
        "fn main() {} fn f(db: Database<String, u8>) { let _ = db.prefix(b\"a\"); }",
        "`&[u8; 1]` is no prefix of `String` keys",
    ),
    (
        "key_for_a_range",
        "fn main() {} fn f(db: Database<String, u8>) { let _ = db.range(\"a\"); }",
        "`&str` is no range of `String` keys",
    ),
    (
        "range_of_another_type",
        "fn main() {} fn f(db: Database<u64, u8>) { let _ = db.range(\"a\"..\"b\"); }",
        "a range of `u64` keys has no end that is a `&str`",
    ),
    (
        "no_flush_limit",
        "fn main() {} async fn f() { let _ = Database::<u64, u8>::builder().durability_relaxed(\
         fluxmap::persistence::PersistenceOptions::new(\"db\")).build().await; }",
        "relaxed durability needs to know when to sync",
    ),
    (
        "not_serde",
        "struct Blob; fn main() {} fn f() { let _ = Database::<u64, Blob>::builder().durability_full(\
         fluxmap::PersistenceOptions::new(\"db\")); }",
        "a durable database cannot store `Blob`",
    ),
    (
        "shared_text",
        "fn main() {} fn f() { let _ = Database::<std::sync::Arc<str>, u8>::builder().durability_full(\
         fluxmap::PersistenceOptions::new(\"db\")); }",
        "a durable database cannot store `std::sync::Arc<str>`",
    ),
    // The documentation of `transact` cites these two.
    (
        "closure_that_is_not_async",
        "fn main() {} async fn f(db: Database<u64, u8>) { let _: Result<(), fluxmap::FluxError> = \
         db.transact(|tx| async { tx.insert(1, 1) }).await; }",
        "error[E0282]: type annotations needed",
    ),
    (
        "error_of_unknown_type",
        "fn main() {} async fn f(db: Database<u64, u8>) { let _ = \
         db.transact(async |tx| { tx.insert(1, 1)?; Ok(()) }).await; }",
        "error[E0283]: type annotations needed",
    ),
];

#[test]
fn the_compiler_says_what_to_do() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Keep the directory from run to run, so that only the first run builds the library once more.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnostics");
    let programs = dir.join("src/bin");
    let _ = fs::remove_dir_all(&programs);
    fs::create_dir_all(&programs).expect("a directory");
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nfluxmap = {{ path = {crate_dir:?} }}\n\n[workspace]\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest).expect("a file is written");
    fs::copy(crate_dir.join("../../Cargo.lock"), dir.join("Cargo.lock")).expect("a file is copied");
    for (name, program, _) in MISTAKES {
        let program = format!("#![allow(unused)]\nuse fluxmap::Database;\n{program}\n");
        fs::write(programs.join(name).with_extension("rs"), program).expect("a file is written");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let checked = Command::new(cargo)
        .args(["check", "--offline", "--keep-going", "--message-format", "short"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&checked.stderr);
    for (name, _, expected) in MISTAKES {
        let about: Vec<&str> = said.lines().filter(|line| line.contains(&format!("{name}.rs:"))).collect();
        assert!(about.iter().any(|line| line.contains(expected)), "{name}: {about:#?} in\n{said}");
    }
}
