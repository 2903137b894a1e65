#!/usr/bin/env bash
# The library tests of the CPU backend on AArch64, so that its NEON code runs, too: qemu emulates the processor. Installs what is
# missing when run as root on Debian or Ubuntu.
#
#     scripts/check-neon.sh [filter of tests; backend::cpu]     OPT_LEVEL=1 by default
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
mkdir -p target

if ! command -v qemu-aarch64-static > /dev/null || ! command -v aarch64-linux-gnu-gcc > /dev/null; then
    [ "$(id -u)" = 0 ] || { echo "install qemu-user-static, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross" >&2; exit 1; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
fi
rustup target add "$target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
# Emulation is some thirty times slower than the processor.
export RAILS_FLOAT_STRIDE="${RAILS_FLOAT_STRIDE:-1001}"
# Compiling takes longest, and these tests do little in dependencies that is not inlined.
cargo test --no-default-features --lib --target "$target" --config "profile.dev.opt-level=${OPT_LEVEL:-1}" \
    --config 'profile.dev.package."*".opt-level=0' "${1:-backend::cpu}" 2>&1 | tee target/neon.log
# A filter that fits no test is no success.
grep -q '^test result: ok. [1-9]' target/neon.log
