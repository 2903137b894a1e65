#!/usr/bin/env bash
# The quick start for Rust (docs/QUICK_START.md), in an empty folder. (Those for C and Python are run by check-capi.sh and
# check-python.sh.) Uses the target folder of this repository, so that dependencies are not compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=$root/target

block() { awk -v fence="^\`\`\`$1$" '$0 ~ fence { on = 1; next } /^```$/ { on = 0 } on' "$root/docs/QUICK_START.md"; }

cd "$work"
commands=$(block sh | grep '^cargo ')
bash -euo pipefail -c "${commands//..\/rails-wgpu/$root}" 2> /dev/null
block rust > src/main.rs
# What `cargo test` has compiled will do: the same versions, profile and features, so those of its other dependencies, too.
sed -i 's/^rails-wgpu = {/& features = ["tracing"],/' Cargo.toml
{ sed -n '/^\[dev-dependencies\]/,/^\[/p' "$root/Cargo.toml"; sed -n '/^\[.*dependencies\]/,/^\[lints/p' "$root/src/bin/rails-bench/Cargo.toml"; } |
    awk '/^[a-z]/ && $1 != "rails-wgpu" && !seen[$1]++' >> Cargo.toml
sed -n '/^\[profile.dev/,$p' "$root/Cargo.toml" >> Cargo.toml
printf '\n[profile.dev.package.rails-wgpu]\n' >> Cargo.toml
sed -n '/^\[profile.dev\]/,/^\[/{/^\[/d;p}' "$root/Cargo.toml" >> Cargo.toml
cp "$root/Cargo.lock" .
cargo run -q | tee found
diff found - << 'END'
item 30  score 1.00
item 20  score 0.80
END
echo "-- the quick start is well"
