#!/usr/bin/env bash
# Runs the models of the index (crates/index/tests/loom) under loom, which tries
# every interleaving with up to three preemptions, and every value that the
# memory model lets a load return. A minute to build, and a minute to run.
#
# Arguments go to the test program: a part of a name picks models.
# LOOM_MAX_PREEMPTIONS=2 is quicker, 4 goes deeper. What a model found first can be
# looked at with LOOM_LOG=1 and LOOM_LOCATION=1.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom ${RUSTFLAGS:-}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"

# Loom alone first: that it cannot be had is no fault of the index.
if ! cargo build --release --package loom; then
    echo "SKIPPED: loom cannot be built here, so the models of the index did not run" >&2
    exit 0
fi
cargo test --release --package fluxmap-index --test loom -- "$@"
