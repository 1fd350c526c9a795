#!/usr/bin/env bash
# Runs short versions of the index's tests under Miri, which checks each memory access
# against Rust's rules: first with Tree Borrows, then with Stacked Borrows. The script needs
# the nightly components miri and rust-src, and takes some ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: Miri is not installed (rustup +nightly component add miri rust-src)" >&2
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/miri"
export FLUXMAP_TEST_DIVISOR=400
common="-Zmiri-env-forward=FLUXMAP_TEST_DIVISOR"

for model in -Zmiri-tree-borrows ""; do
    printf '\n== %s\n' "${model:-Stacked Borrows}"
    MIRIFLAGS="$common $model" cargo +nightly miri test --package fluxmap-index \
        --test leaks --test misuse --test threads -- --skip forgotten "$@"
done
