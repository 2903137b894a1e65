#!/usr/bin/env bash
# How time grows with the number of items, the size of a batch, the number of results and the number of threads: curves that should
# have no cliffs. CPU backend unless --device says otherwise.
#
#     benches/scaling.sh OUT_DIR [--quick] [--threads 1,2] [--device cpu] [--bench-file FILE] [--binary FILE]
#
# Writes OUT_DIR/scaling-*.csv, one for each curve and number of threads, in the columns of `rails-bench bench`. Each curve changes
# one thing and leaves the others at N = 100,000 (20,000 where the batch changes), B = 32, k = 100. Items and queries are random, of
# the 8x4x64 shape (D = 50, H = 128), from a bench file: FILE, or one that is made with python3 and numpy.
#
# Memory: a million items take 2 GB as f32 components, so those curves end there. From 1 to 10 million items are measured with int8
# tables in raw form, 2.7 GB; their recall is against an f32 index in the same form, which is there before and takes 8 GB beside
# 4 GB of embeddings. So the largest curve needs 16 GB in all and 2 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?usage: benches/scaling.sh OUT_DIR [options]}
shift
quick= threads=1,$(nproc) device=cpu file= binary=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1; shift ;;
        --threads) threads=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        --bench-file) file=$2; shift 2 ;;
        --binary) binary=$2; shift 2 ;;
        *) echo "$1: no such option" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
if [ -z "$binary" ]; then
    cargo build -q --release
    binary=target/release/rails-bench
fi

most=10000000 items=1000,3000,10000,30000,100000,300000,1000000 large=1000000,3000000,10000000
base=100000 few=20000 batches=1,2,4,8,16,32,33,64,128,256,512 ks=1,10,100,1000,10000 runs=5
if [ -n "$quick" ]; then
    most=3000 items=1000,3000 large=3000 base=1000 few=1000 batches=1,2,33 ks=1,10,1000 runs=1
fi
if [ -z "$file" ]; then
    file=$out/scaling.safetensors
    "${PYTHON:-python3}" benches/peers/bench_file.py "$file" --items "$most" --queries 512 ||
        { echo "scaling: needs --bench-file, or python3 with numpy to make one" >&2; exit 1; }
    trap 'rm -f "$file"' EXIT
fi

for count in ${threads//,/ }; do
    curve() {
        local name=$1
        shift
        echo "== $name, $count threads"
        RAYON_NUM_THREADS=$count "$binary" bench --bench-file "$file" --device "$device" --runs "$runs" --warm-up 1 \
            --csv "$out/scaling-$name-$count-threads.csv" "$@"
    }
    curve items --items "$items" --limit 32 --algorithm exact,avg:500,tangent:1000
    curve items-large --items "$large" --limit 32 --dtype int8 --form raw --algorithm avg:500,h-indexer:1000,tangent:1000
    curve batches --items "$few" --batch-size "$batches" --algorithm exact,tangent:1000
    curve results --items "$base" --limit 32 --k "$ks" --algorithm exact,mips,tangent:1000
done
