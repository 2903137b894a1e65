#!/usr/bin/env bash
# What a compiler for real GPUs makes of every kernel, without a GPU: Mesa's driver for AMD hardware (of Debian's mesa-vulkan-drivers)
# compiles for chips that are not there. Fails if a kernel needs scratch memory, spills registers, or wastes more vector instructions
# than benches/isa/floors.txt allows. benches/isa/main.rs says more, and has the options.
#
#     scripts/check-isa.sh [--csv FILE] [--set-floors] [--full-checks] [--shaders FOLDER] [--turns N,N] [--dump] [FILTER]
#     scripts/check-isa.sh --self-test      whether it notices kernels that were made worse
set -euo pipefail
cd "$(dirname "$0")/.."

driver=
for candidate in /usr/share/vulkan/icd.d/radeon_icd*.json; do
    if [ -f "$candidate" ]; then driver=$candidate; fi
done
if [ -z "$driver" ]; then
    echo "there is no /usr/share/vulkan/icd.d/radeon_icd*.json: install mesa-vulkan-drivers and libvulkan1" >&2
    exit 1
fi
export VK_DRIVER_FILES=$driver
unset RADV_FORCE_FAMILY
cargo test --quiet --bench isa -- "$@"
