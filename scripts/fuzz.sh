#!/usr/bin/env bash
# Feeds hostile bytes to the readers of the log and of the checkpoint, on one core.
#
#   scripts/fuzz.sh [seconds for each target, by default 300] [target ...]
#
# The script needs the nightly compiler, and a C++ compiler to build libFuzzer. It sets the
# compiler's flags itself, so cargo-fuzz need not be installed. If it is, `cargo fuzz run log`
# does the same.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

target=x86_64-unknown-linux-gnu
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: no nightly toolchain, so nothing was fuzzed" >&2
    exit 0
fi
if [ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ] || ! command -v c++ >/dev/null; then
    echo "SKIPPED: fuzzing is set up for $target with a C++ compiler only" >&2
    exit 0
fi

seconds=${1:-300}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(log checkpoint)

# Do not use the address sanitizer, which makes the threads of each opening ten times as slow:
# the fuzzed code is safe, and scripts/sanitize.sh checks the index.
# Give cargo a target, so that build scripts are not instrumented.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/fuzz"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
-Clink-dead-code"
cargo +nightly build --release --target "$target"

for name in "${targets[@]}"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    # The limit of memory can be low: the codec and all other code allocate in proportion to the input.
    nice -n 19 "$CARGO_TARGET_DIR/$target/release/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" \
        -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048 -timeout=20 -print_final_stats=1
done
