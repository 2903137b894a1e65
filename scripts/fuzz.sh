#!/usr/bin/env bash
# Fuzzes what reads files that others have made (fuzz/targets), each target for some seconds, two at a time. A finding ends the
# script with an error and lies in target/fuzz/findings; what was learned on the way is kept in target/fuzz/corpus for the next
# run. Needs a C++ compiler, for libFuzzer; any compiler of Rust will do, since the instrumentation is LLVM's own.
#
#     scripts/fuzz.sh SECONDS [TARGET ...]        an hour over all five: scripts/fuzz.sh 1440
set -euo pipefail
seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET ...]}
shift
cd "$(dirname "$0")/.."
targets=("$@")
[ $# -gt 0 ] || targets=(pickle gin safetensors manifest sequences)
out=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz sets, without a sanitizer: those need a nightly compiler, and there is no unsafe code in the parsers. The
# target is named so that build scripts are not instrumented.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
bins=(--bin seeds)
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTFLAGS="$coverage" cargo build -q --manifest-path fuzz/Cargo.toml --target-dir "$out/build" --target "$host" --release "${bins[@]}"
"$out/build/$host/release/seeds" "$out/corpus"

fuzz() {
    mkdir -p "$out/findings/$1"
    # Memory: what a small file makes the program ask for at once, and in all.
    if "$out/build/$host/release/$1" "$out/corpus/$1" -max_total_time="$seconds" -timeout=30 -malloc_limit_mb=512 \
        -rss_limit_mb=2048 -max_len=100000 -artifact_prefix="$out/findings/$1/" -print_final_stats=1 > "$out/$1.log" 2>&1; then
        echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$1.log") inputs, nothing found"
    else
        tail -n 40 "$out/$1.log"
        echo "$1: FOUND SOMETHING, in $out/findings/$1"
        return 1
    fi
}

failed=0
for ((i = 0; i < ${#targets[@]}; i += 2)); do
    running=()
    for target in "${targets[@]:i:2}"; do
        fuzz "$target" &
        running+=($!)
    done
    for job in "${running[@]}"; do wait "$job" || failed=1; done
done
exit $failed
