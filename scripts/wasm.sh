#!/usr/bin/env bash
# Checks that the library compiles for wasm32-unknown-unknown, for use in memory in a browser.
# Tries to install the target where it is not.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-unknown-unknown
is_there() { [ -d "$(rustc --print target-libdir --target "$target")" ]; }

if ! is_there && command -v rustup >/dev/null; then
    # Without it, the next look says so.
    rustup target add "$target" || true
fi
if ! is_there; then
    echo "SKIPPED: the target $target cannot be had, so nothing was checked for it" >&2
    exit 0
fi
if ! cargo fetch --target "$target"; then
    echo "SKIPPED: what the library needs on $target cannot be had, so nothing was checked for it" >&2
    exit 0
fi
cargo check --package fluxmap --target "$target"
cargo check --package fluxmap --target "$target" --all-features
