#!/usr/bin/env bash
# Everything to be measured on a machine with a GPU, in one command.
#
#     benches/gpu.sh OUT_DIR [--quick] [--device gpu] [--seconds 720] [--binary FILE] [--peak FILE] [--tests DIR]
#                    [--bench-file FILE] [--checkpoint FILE --config FILE --dataset FILE]
#
# Needs executables, a Vulkan loader and, for inputs and peers, python3; no Rust. Where there is Rust, here or on a machine of
# the same kind,
#
#     cargo build --release && cargo bench --bench gpu_peak --no-run && cargo test --no-run
#
# makes them, and they are found where cargo puts them: target/release/rails-bench (or --binary), the kernels beside the peak of
# their unit in target/release/deps/gpu_peak-* (or --peak), the tests of shaders in target/debug/deps (or --tests). With python3
# and numpy it makes random inputs itself (else --bench-file), with torch it measures PyTorch, eager and compiled, on the same
# ones; what else is missing is said, and left out. A trained model (--checkpoint and its company) adds recall. Writes CSV files and
# log.txt to OUT_DIR, and fails in the end if something did. The most important parts come first; each has a time limit, and all of them
# --seconds together: what they have no time for is said and left out. `--quick` is a trial, for software drivers too: --device llvmpipe.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?usage: benches/gpu.sh OUT_DIR [options]}
shift
quick= seconds=720 binary=target/release/rails-bench peak= tests=target/debug/deps device=gpu file= checkpoint= config= dataset=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1; shift ;;
        --binary) binary=$2; shift 2 ;;
        --peak) peak=$2; shift 2 ;;
        --tests) tests=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --bench-file) file=$2; shift 2 ;;
        --checkpoint) checkpoint=$2; shift 2 ;;
        --config) config=$2; shift 2 ;;
        --dataset) dataset=$2; shift 2 ;;
        *) echo "$1: no such option" >&2; exit 2 ;;
    esac
done
[ -x "$binary" ] || { echo "$binary is not there: cargo build --release, or --binary FILE" >&2; exit 1; }
mkdir -p "$out"
exec > >(tee "$out/log.txt") 2>&1
python=${PYTHON:-python3}
has() { "$python" -c "import $1" 2> /dev/null; }
# The newest executable NAME or NAME-HASH in a folder.
newest() {
    find "$1" -maxdepth 1 -type f -executable \( -name "$2" -o -name "$2-*" \) ! -name '*.*' -printf '%T@ %p\n' 2> /dev/null |
        sort -n | tail -n 1 | cut -d ' ' -f 2- || true
}
made=()
trap 'rm -rf "${made[@]}"' EXIT

failed= late=
# Runs a command for so many seconds at most, as long as there is time at all.
part() {
    local name=$1 limit=$2 status=0
    shift 2
    echo "== $name ($SECONDS s)"
    if [ $((seconds - SECONDS)) -lt "$limit" ]; then limit=$((seconds - SECONDS)); fi
    if [ "$limit" -lt 5 ]; then
        echo "left out: $seconds seconds are over"
        late="$late $name"
        return
    fi
    # What is interrupted keeps the rows that it has.
    timeout --signal INT --kill-after 10 "$limit" "$@" || status=$?
    case $status in
        0) ;;
        124 | 137) echo "stopped after $limit seconds"; late="$late $name" ;;
        *) echo "FAILED: status $status"; failed="$failed $name" ;;
    esac
}

if [ -n "$quick" ]; then
    sizes=500 large= kernels=500 batches=4 big=2000 topk_items=500 ks=10 runs=1 few=1 dtypes=f32 pool=100 queries=8
else
    sizes=4000,100000,1000000 large=10000000 kernels=100000 batches=1,2,4,8,16,32,64,128,256,512 big=100000000
    topk_items=200000 ks=1,10,100,1000,2048,10000 runs=20 few=5 dtypes=f32,f16,int8 pool=100000 queries=512
fi

"$binary" devices | tee "$out/devices.txt"

# Tests know devices by a part of their name, as this script does, but not what `gpu` means.
name=$device
[ "$device" != gpu ] || name=$(sed -n 's/^gpu: //p' "$out/devices.txt")
# Programs, and the parts of them that need a GPU; a trial takes one only.
tests_of="gpu::shaders gpu::scan gpu::tiers engine::oracle gpu::tables gpu::top_k gpu::ops engine::int8 engine::determinism
    engine::retrieval engine::train::on_gpu gpu::device gpu::host gpu::faults"
[ -z "$quick" ] || tests_of=gpu::device
for test in $tests_of; do
    run=$(newest "$tests" "${test%%::*}")
    report=$out/test-${test//::/-}.txt
    if [ -z "$run" ]; then
        echo "$test: FAILED: ${test%%::*} is not in $tests (cargo test --no-run, or --tests DIR)"
        failed="$failed $test"
        continue
    fi
    part "$test" 60 env RAILS_REQUIRE_GPU=1 RAILS_TEST_ADAPTER="$name" "$run" "${test#*::}::" > "$report" 2>&1
    # An empty part of a program passes, too.
    if ! grep '^test result: ok. [1-9]' "$report" | sed "s/^/$test: /"; then
        echo "$test: FAILED"
        tail -n 40 "$report"
        failed="$failed $test"
    fi
done

[ -n "$quick" ] || part "the choice of scan kernels" 60 "$binary" devices --tune "$device" --json "$out/devices.json"

[ -n "$peak" ] || peak=$(newest target/release/deps gpu_peak)
if [ -n "$peak" ]; then
    part "kernels beside the peak of their unit" 120 "$peak" --device "$device" --csv "$out/peak.csv" ${quick:+--quick mips}
else
    echo "== kernels beside the peak of their unit: left out: cargo bench --bench gpu_peak --no-run, or --peak FILE"
fi

if [ -z "$file" ]; then
    if has numpy; then
        file=$out/inputs.safetensors
        made+=("$file")
        "$python" benches/peers/bench_file.py "$file" --items "$(echo "$sizes,$kernels,${large:-0},$topk_items" | tr , '\n' | sort -n | tail -n 1)" \
            --queries "$queries"
    else
        echo "no inputs: give --bench-file FILE, or python3 with numpy, which makes some" >&2
        exit 1
    fi
fi
bench() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$binary" bench --bench-file "$file" --device "$device" --csv "$out/$name.csv" "$@"
}

algorithms=exact,naive:50,avg:500,avg:1000,comb:50_500,tangent:500,tangent:1000
[ -z "$quick" ] || algorithms=exact,avg:50
bench algorithms 120 --items "$sizes" --limit 32 --dtype "${dtypes%,int8}" --algorithm "$algorithms" --runs "$runs"

# Whole searches: GFLOP/s and GB/s follow from the times.
bench searches 120 --items "$kernels" --batch-size "$batches" --dtype "$dtypes" --algorithm exact,mips --runs "$few"
"$python" - "$out/searches.csv" << 'EOF' || echo "searches: no table of GFLOP/s without python3"
import csv, sys
print(f"{'dtype':6} {'batch':>6} {'algorithm':10} {'ms p50':>10} {'GFLOP/s':>10} {'GB/s':>8}   8x4x64, D = 50, H = 128")
for row in csv.DictReader(open(sys.argv[1])):
    n, batch, ms = int(row["items"]), int(row["batch"]), float(row["ms_per_batch_p50"])
    mol = row["algorithm"] == "exact"
    size = {"f32": 4, "f16": 2, "int8": 1}[row["dtype"]]
    flops, numbers = (2 * 32 * 64 + 4 * 32 * 128, 4 * 64 + 32) if mol else (2 * 50, 50)
    print(f"{row['dtype']:6} {batch:6} {row['algorithm']:10} {ms:10.3f} {n * batch * flops / ms / 1e6:10.1f} {n * numbers * size / ms / 1e6:8.1f}")
EOF

bench top-k 60 --items "$topk_items" --limit 32 --k "$ks" --algorithm mips,exact --runs "$runs"

if [ -n "$quick" ]; then
    echo "== PyTorch: left out: a trial"
elif has torch && "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
    part PyTorch 120 "$python" benches/peers/compare.py --torch-only --cuda --items "$sizes" --cases exact,naive,avg,comb,mips \
        --bench-file "$file" --out "$out/torch"
else
    echo "== PyTorch: left out: no python3 with a torch that sees a CUDA device"
fi

if [ -n "$checkpoint" ] && [ -n "$config" ] && [ -n "$dataset" ]; then
    part "trained model" 60 "$binary" bench --checkpoint "$checkpoint" --config "$config" --dataset "$dataset" --device "$device" \
        --limit 1024 --algorithm "$algorithms,h-indexer:4000,distilled:200,cascade:2000_300" --csv "$out/trained.csv"
else
    echo "== trained model: left out: no --checkpoint, --config and --dataset"
fi

[ -z "$large" ] || bench algorithms-large 90 --items "$large" --limit 32 --dtype int8 --form raw \
    --algorithm exact,avg:1000,tangent:1000,h-indexer:100000 --runs "$few"

# The model of the demo, a small one (4x2x16, D = 16), if no other is given: h-indexer, and the scan of the same first stage with next
# to nothing after it.
model=${checkpoint:-assets/demo.safetensors} users=${dataset:-assets/demo.csv}
[ -n "$checkpoint" ] || config=
index=$(mktemp -d "$out/index.XXXX")
made+=("$index")
part "an index of $big items" 120 "$binary" index build --checkpoint "$model" ${config:+--config "$config"} --items "random:$big" \
    -o "$index/idx" --dtype int8 --form raw --device "$device"
for algorithm in "h-indexer:$pool" avg:100; do
    [ ! -f "$index/idx/manifest.json" ] ||
        part "$algorithm of $big items" 60 "$binary" eval --index "$index/idx" --dataset "$users" --device "$device" --limit 96 \
            --batch-size 32 --k 100 --algorithm "$algorithm" --json "$out/large-${algorithm%%:*}.json"
done

echo "== done ($SECONDS s): $out"
[ -z "$late" ] || echo "no time for:$late" >&2
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
# A trial is of the whole script.
[ -z "$quick" ] || [ -z "$late" ]
