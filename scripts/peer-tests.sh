#!/usr/bin/env bash
# Runs the tests of FluxMap 0.3.7 against this FluxMap: the files `db`, `isolation` and
# `memory`, as published in the registry. This repository has no copy of them. The script takes
# three minutes, mostly for building.
#
# The tests run unchanged, except for those named at the end of this script, each with the reason. The
# other two test files of 0.3.7, `skiplist` and `persistence`, test its internals and are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD

version=0.3.7
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A crate that only depends on 0.3.7: cargo downloads the sources, and builds nothing.
mkdir -p "$scratch/fetch/src"
touch "$scratch/fetch/src/lib.rs"
cat >"$scratch/fetch/Cargo.toml" <<TOML
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"

[dependencies]
theirs = { package = "fluxmap", version = "=$version" }

[workspace]
TOML
if ! (cd "$scratch/fetch" && cargo vendor --quiet --versioned-dirs "$scratch/vendor") >/dev/null; then
    echo "SKIPPED: fluxmap $version could not be had from the registry, so none of its tests ran" >&2
    exit 0
fi
theirs="$scratch/vendor/fluxmap-$version"

# A crate with the tests of 0.3.7, whose dependency `fluxmap` is this library. With this
# repository's lock file, common dependencies have the same versions.
mkdir -p "$scratch/run/src" "$scratch/run/tests"
touch "$scratch/run/src/lib.rs"
cat >"$scratch/run/Cargo.toml" <<TOML
[package]
name = "peer-tests"
version = "0.0.0"
edition = "2024"

[dev-dependencies]
fluxmap = { path = "$repo/crates/fluxmap" }
ciborium = "0.2"
fastrand = "2"
futures = "0.3"
serde = { version = "1", features = ["derive", "rc"] }
tempfile = "3"
tokio = { version = "1", features = ["rt-multi-thread", "macros", "time"] }

[workspace]
TOML
cp "$repo/Cargo.lock" "$scratch/run/Cargo.lock"
cp "$theirs/tests/db.rs" "$theirs/tests/isolation.rs" "$theirs/tests/memory.rs" "$scratch/run/tests/"

skips=()
# skip TEST REASON: leaves a test out.
skip() {
    if ! grep -q "fn $1(" "$scratch/run/tests/"*.rs; then
        echo "there is no test $1 to skip" >&2
        exit 1
    fi
    skips+=(--skip "$1")
    echo "not run: $1 ($2)"
}

# change FILE FROM TO REASON: replaces a text in a test. The text must be there.
change() {
    local file="$scratch/run/tests/$1"
    if ! grep -qF -- "$2" "$file"; then
        echo "tests/$1 has no '$2' to change" >&2
        exit 1
    fi
    # \Q takes the text literally, not as a pattern.
    FROM="$2" TO="$3" perl -pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/g' "$file"
    echo "changed in $1: '$2' to '$3' ($4)"
}

skip test_commit_logs_to_wal \
    "reads the log as CBOR from a file wal.0; this library has another format, see docs/format.md"
change db.rs 'An automatic eviction policy requires max_memory to be set.' \
    'an `eviction_policy` needs `max_memory`: without a limit, nothing is evicted' \
    "compares the text of an error message"
change db.rs '// Now, when Tx1 tries to commit, ' 'h1.insert("elsewhere".to_string(), 0).await.unwrap(); // ' \
    "expects a read-only transaction to fail; here it commits, serialized before the other one, so the test makes it write"
change memory.rs '// Access key2 to make it' 'handle.insert("key3".to_string(), 3).await.unwrap(); // Access key2 to make it' \
    "expects LRU to order two reads by time; this library orders reads by the writes between them, so the test makes one"

CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$repo/target}/peer-tests" \
    cargo test --manifest-path "$scratch/run/Cargo.toml" --no-fail-fast -- "${skips[@]}"
