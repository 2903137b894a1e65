#!/usr/bin/env bash
# This crate beside PyTorch, faiss, NumPy and usearch on identical inputs, taking turns batch by batch, all with the same number
# of threads.
#
#     benches/peers/run.sh [OUT_DIR] [options of compare.py]
#
# Makes a virtual environment in target/peers (a download of 3 GB, PyTorch brings its GPU libraries), builds the Python package
# with the CPU backend in release mode, and writes OUT_DIR/peers.csv (OUT_DIR: target/peers/out). Needs Rust, Python 3.9 or later
# and, for torch.compile, a C++ compiler. `--quick` is a trial whose numbers mean nothing; `--help` shows the other options.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

out=target/peers/out
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    out=$1
    shift
fi
mkdir -p "$out"

venv=$root/target/peers/venv
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
if ! "$venv/bin/python" -c 'import numpy, torch, faiss' 2> /dev/null; then
    "$venv/bin/pip" install -q 'maturin>=1.9,<2' numpy torch faiss-cpu
fi
# Not there for every platform; its rows are left out then.
"$venv/bin/python" -c 'import usearch' 2> /dev/null || "$venv/bin/pip" install -q usearch || true

PYO3_PYTHON=$venv/bin/python "$venv/bin/maturin" build -q --release --no-default-features -m python/Cargo.toml \
    --out target/peers/wheels
"$venv/bin/pip" install -q --force-reinstall --no-deps "$(ls -t target/peers/wheels/*.whl | head -n 1)"

commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
exec "$venv/bin/python" benches/peers/compare.py --out "$out" --commit "$commit" "$@"
