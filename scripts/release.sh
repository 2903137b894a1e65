#!/usr/bin/env bash
# What a release consists of, for the machine that this runs on: the program with its manual pages and completions, the library for C
# and C++, and the wheel. Needs Python 3.9 or later for the wheel.
#
#     scripts/release.sh [FOLDER; target/release-files]
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-target/release-files}"
out=$(cd "${1:-target/release-files}" && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')

echo "-- program"
program=rails-bench-$version-$host
rm -rf "${out:?}/$program"
mkdir -p "$out/$program"/{man,completions}
cargo build --release --locked -p rails-bench
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cp "$target"/release/rails-bench* "$out/$program/" 2> /dev/null || true
rm -f "$out/$program"/*.d
bench=$out/$program/rails-bench
"$bench" man --folder "$out/$program/man"
for shell in bash zsh fish powershell elvish; do "$bench" completions "$shell" > "$out/$program/completions/rails-bench.$shell"; done
cp README.md docs/LICENSE docs/CHANGELOG.md "$out/$program/"
tar -C "$out" -czf "$out/$program.tar.gz" "$program"

echo "-- library for C and C++"
library=rails-wgpu-c-$version-$host
rm -rf "${out:?}/$library"
scripts/install-capi.sh "$out/$library"
cp docs/LICENSE docs/C.md "$out/$library/"
tar -C "$out" -czf "$out/$library.tar.gz" "$library"

echo "-- wheel"
venv=$target/python
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install -q 'maturin>=1.9,<2'
PYO3_PYTHON=$venv/bin/python "$venv/bin/maturin" build -m python/Cargo.toml --release --out "$out"

ls -l "$out"
