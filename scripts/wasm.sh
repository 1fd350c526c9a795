#!/usr/bin/env bash
# Checks that the library compiles for wasm32-unknown-unknown, for use in memory in a browser.
# Tries to install the target if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-unknown-unknown
is_there() { [ -d "$(rustc --print target-libdir --target "$target")" ]; }

if ! is_there && command -v rustup >/dev/null; then
    # If this fails, the check below reports it.
    rustup target add "$target" || true
fi
if ! is_there; then
    echo "SKIPPED: the target $target cannot be installed, so nothing was checked for it" >&2
    exit 0
fi
if ! cargo fetch --target "$target"; then
    echo "SKIPPED: the dependencies for $target cannot be downloaded, so nothing was checked for it" >&2
    exit 0
fi
cargo check --package fluxmap --target "$target"
cargo check --package fluxmap --target "$target" --all-features
