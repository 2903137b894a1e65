#!/usr/bin/env bash
# The Python package: builds the wheel, installs it into a virtual environment of its own, checks types, runs the tests, the
# example and the quick start. Uses the CPU backend. Needs Python 3.9 or later, and installs PyTorch for the tests with live
# modules where that is possible.
#
#     scripts/check-python.sh [options of cargo, such as --no-default-features for the CPU alone]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv=$root/target/python
if [ ! -x "$venv/bin/pip" ]; then
    if ! "${PYTHON:-python3}" -m venv "$venv"; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy python3 python3-venv
        python3 -m venv --clear "$venv"
    fi
fi
"$venv/bin/pip" install -q 'maturin>=1.9,<2' 'numpy>=1.23' 'pytest>=7' 'mypy>=1.8'
# What evaluations are compared with; not to be had for every Python and machine.
"$venv/bin/pip" install -q --no-deps pytrec_eval-terrier ||
    echo "pytrec_eval could not be installed: the comparison with trec_eval is left out"
# Large, and not to be had for every Python and machine: without it, the tests of live modules say that they are skipped.
timeout 900 "$venv/bin/pip" install -q torch ||
    echo "PyTorch could not be installed: the tests with live modules are left out"

# What `rails-wgpu[ray]` brings.
"$venv/bin/pip" install -q 'ray>=2.40' 'pyarrow>=14' 'aiohttp>=3.9'

export PYO3_PYTHON=$venv/bin/python
echo "-- wheel"
"$venv/bin/maturin" build -m python/Cargo.toml --out "$work/wheels" --profile dev "$@"
"$venv/bin/pip" install -q --force-reinstall --no-deps "$work"/wheels/*.whl

echo "-- the program in the wheel"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$("$venv/bin/rails-bench" --version)" = "rails-bench $version" ]
"$venv/bin/rails-bench" convert assets/demo.safetensors -o "$work/model.safetensors" > /dev/null
RUST_LOG=info "$venv/bin/rails-bench" index build --checkpoint "$work/model.safetensors" --distill assets/demo.csv --device cpu \
    -o "$work/index" > "$work/built" 2> "$work/log"
grep -q "items *220 in 1 segment;" "$work/built"
grep -q "learning from" "$work/log"
if "$venv/bin/rails-bench" index info "$work/nothing" 2> "$work/log"; then exit 1; fi
grep -q "^error: " "$work/log"

echo "-- types"
(cd python && "$venv/bin/mypy" --cache-dir "$root/target/mypy" package)

echo "-- tests"
(cd python && "$venv/bin/python" -m pytest -q -rs -p no:cacheprovider tests)

echo "-- example and quick start, from an empty folder"
mkdir "$work/empty"
awk '/^```python$/ { on = 1; next } /^```$/ { on = 0 } on' docs/QUICK_START.md > "$work/empty/first.py"
cd "$work/empty"
"$venv/bin/python" "$root/examples/python/quick_start.py"
"$venv/bin/python" "$root/examples/python/text_retrieval.py" > /dev/null
"$venv/bin/python" first.py
echo "-- Python is well"
