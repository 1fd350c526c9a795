#!/usr/bin/env bash
# Runs the models of the index (crates/index/tests/loom) under loom. Loom tries every
# interleaving with up to three preemptions, and every value that the memory model lets a
# load return. The models run once with runs of two entries, where blocks come and go, and
# once with runs of four and keys with leads, where entries move. Building takes two minutes,
# running two more.
#
# Arguments go to the test program: a part of a name selects models.
# LOOM_MAX_PREEMPTIONS=2 is quicker, 4 searches deeper. LOOM_LOG=1 and LOOM_LOCATION=1 show
# the execution in which a model failed.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom ${RUSTFLAGS:-}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"

# Build loom alone first: if it cannot be downloaded, that is no fault of the index.
if ! cargo build --release --package loom; then
    echo "SKIPPED: loom cannot be built here, so the models of the index did not run" >&2
    exit 0
fi
cargo test --release --package fluxmap-index --test loom -- "$@"
# The default here is two preemptions: three take hours with wide runs.
RUSTFLAGS="$RUSTFLAGS --cfg wide" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/wide" \
    LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}" \
    cargo test --release --package fluxmap-index --test loom -- "${@:-shifts}"
