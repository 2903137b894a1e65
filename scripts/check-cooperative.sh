#!/usr/bin/env bash
# The tests of the scan by cooperative matrices (tests/gpu/tiers.rs) on a software driver that has such matrices: lavapipe of a
# Mesa newer than that of most distributions. The driver and the C library that it needs are unpacked into a folder, out of a
# newer Debian suite of the mirror that this machine uses; nothing is installed. Needs apt, on Debian.
#
#     scripts/check-cooperative.sh [FOLDER for the driver; target/mesa]     SUITE=sid by default
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-target/mesa}"
folder=$(cd "${1:-target/mesa}" && pwd)
root=$folder/root
libraries=$root/usr/lib/x86_64-linux-gnu

if [ ! -f "$libraries/libvulkan_lvp.so" ]; then
    echo "-- driver"
    # Either form of source list may be absent.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        sed -n 's/^URIs: *//p;s/^deb \([^ []*\) .* main.*/\1/p' | head -n 1) || true
    mkdir -p "$folder"/apt/{lists,cache,etc}/partial "$root"
    : > "$folder/apt/etc/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror ${SUITE:-sid} main" > "$folder/apt/etc/sources"
    cat > "$folder/apt/etc/conf" << END
Dir::State::lists "$folder/apt/lists";
Dir::State::status "$folder/apt/etc/status";
Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/etc/sources";
Dir::Etc::sourceparts "-";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
END
    export APT_CONFIG=$folder/apt/etc/conf
    apt-get update -q
    apt-get install -qy --download-only mesa-vulkan-drivers libvulkan1
    unset APT_CONFIG
    for package in "$folder"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -rf "$folder/apt"
fi
sed "s#\"library_path\": *\"[^\"]*\"#\"library_path\": \"$libraries/libvulkan_lvp.so\"#" \
    "$root"/usr/share/vulkan/icd.d/lvp_icd*.json > "$folder/lvp.json"

echo "-- tests"
program=$(cargo test --test gpu --no-run --message-format=json | sed -n 's#.*"executable":"\([^"]*/gpu-[^"]*\)".*#\1#p')
# The driver's C library is newer than the system's: the program starts with the loader that belongs to it.
VK_DRIVER_FILES=$folder/lvp.json MESA_SHADER_CACHE_DIR=$folder/shader-cache \
    RAILS_REQUIRE_GPU=1 RAILS_REQUIRE_COOPERATIVE=1 \
    "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$program" --test-threads=2 tiers::
