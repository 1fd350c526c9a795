#!/usr/bin/env bash
# Simulates whole lives of databases, on two cores, with one new seed after another.
#
#   scripts/world.sh [seconds, by default 600] [first seed] [options of the program, such as --profile recovery]
#
# The last line is a summary. The exit status is 1 if a world failed. A failure prints its seed, a
# smaller world that fails as well, and the command that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=600
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
arguments=(--seconds "$seconds")
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    arguments+=(--from "$1")
    shift
fi
cargo build --quiet -p fluxmap-world
exec "${CARGO_TARGET_DIR:-target}/debug/world" "${arguments[@]}" "$@"
