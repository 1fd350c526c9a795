#!/usr/bin/env bash
# Runs short versions of the index's tests under valgrind's memcheck, which finds invalid
# reads and writes, use of uninitialized memory, double frees and leaks. It checks the
# optimized program, including the standard library. The script takes two minutes, mostly
# for building.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: valgrind is not installed" >&2
    exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=valgrind --quiet --error-exitcode=9 --leak-check=full \
--show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect --fair-sched=yes"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/valgrind"
export FLUXMAP_TEST_DIVISOR=10

# Tests with "forgotten" in their names leak by design.
cargo test --release --package fluxmap-index --lib --tests --no-fail-fast -- \
    --test-threads 1 --skip forgotten "$@"
