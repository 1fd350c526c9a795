#!/usr/bin/env bash
# Runs the models of the index (crates/index/tests/loom) under loom, which tries
# every interleaving with up to three preemptions, and every value that the
# memory model lets a load return; once with runs of two entries, where blocks come and
# go, and once with runs of four and keys with leads, where entries move. Two minutes to
# build, and two minutes to run.
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
# With two preemptions, unless told otherwise: three take hours here.
RUSTFLAGS="$RUSTFLAGS --cfg wide" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/wide" \
    LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}" \
    cargo test --release --package fluxmap-index --test loom -- "${@:-shifts}"
