#!/usr/bin/env bash
# Builds the shared library for C and C++ and installs it with its headers and its pkg-config file.
#
#     scripts/install-capi.sh PREFIX [options of cargo, such as --no-default-features for the CPU alone]
set -euo pipefail
prefix=${1:?usage: scripts/install-capi.sh PREFIX [cargo options]}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
cd "$(dirname "$0")/.."
shift
case " $* " in *" --profile "*) ;; *) set -- --release "$@" ;; esac

# The crate type is named here, not in Cargo.toml: no other build has to make, and link, a shared library. Cargo says
# where it put it.
messages=$(cargo rustc -p rails-wgpu --lib --features attributes,capi --crate-type cdylib --message-format json-render-diagnostics "$@")
library=$(grep -o '"[^"]*rails_wgpu\.\(so\|dylib\|dll\)"' <<< "$messages" | tail -n 1 | tr -d '"')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

mkdir -p "$prefix/lib/pkgconfig" "$prefix/include"
cp "$library" "$prefix/lib/"
cp src/capi/rails_wgpu.h src/capi/rails_wgpu.hpp "$prefix/include/"
sed "s|@VERSION@|$version|" src/capi/rails-wgpu.pc.in > "$prefix/lib/pkgconfig/rails-wgpu.pc"
echo "installed rails-wgpu $version for C in $prefix"
