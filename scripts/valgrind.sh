#!/usr/bin/env bash
# Runs short versions of the index's tests under valgrind's memcheck: invalid
# reads and writes, use of memory that was never set, double frees, leaks. It
# watches the optimized program as it is, standard library included. Two minutes,
# most of which to build.
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

# What is named so leaks by design.
cargo test --release --package fluxmap-index --lib --tests --no-fail-fast -- \
    --test-threads 1 --skip forgotten "$@"
