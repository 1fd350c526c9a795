#!/usr/bin/env bash
# Whole lives of databases under simulation, on two cores, with ever new seeds:
#
#   scripts/world.sh [seconds, by default 600] [first seed] [options of the program, such as --profile recovery]
#
# The last line says what was done; exit status 1 if anything was wrong. A failure prints its
# seed, a smaller world that fails as well, and the command that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=(--seconds "${1:-600}")
if [ $# -gt 1 ] && [[ $2 =~ ^[0-9]+$ ]]; then
    arguments+=(--from "$2")
    shift
fi
shift || true
cargo build --quiet -p fluxmap-world
exec "${CARGO_TARGET_DIR:-target}/debug/world" "${arguments[@]}" "$@"
