#!/usr/bin/env bash
# The functions for C: the header is what the code says, both examples and the quick start work, and the test program
# finds neither a wrong answer nor a leak. Uses the CPU backend. Needs a C and a C++ compiler, pkg-config and valgrind.
#
#     scripts/check-capi.sh [options of cargo, such as --no-default-features for the CPU alone]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tools=$root/target/tools
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

missing() { for tool in "$@"; do command -v "$tool" > /dev/null || return 0; done; return 1; }
if missing cc c++ pkg-config valgrind; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc g++ pkg-config valgrind
fi
if [ ! -x "$tools/bin/cbindgen" ]; then
    CARGO_TARGET_DIR="$tools/build" cargo install -q cbindgen --version 0.29.4 --locked --debug --root "$tools"
fi

echo "-- header"
"$tools/bin/cbindgen" -q --config src/capi/cbindgen.toml --output "$work/rails_wgpu.h" . 2> "$work/cbindgen.log" ||
    { cat "$work/cbindgen.log"; exit 1; }
if ! diff -u src/capi/rails_wgpu.h "$work/rails_wgpu.h"; then
    cp "$work/rails_wgpu.h" target/rails_wgpu.h
    echo "src/capi/rails_wgpu.h is not what src/capi says; the new one is target/rails_wgpu.h" >&2
    exit 1
fi

echo "-- lints"
cargo clippy -p rails-wgpu --features attributes,capi --lib "$@" -- -D warnings

echo "-- library"
scripts/install-capi.sh "$work/installed" --profile dev "$@"
# As an archive is unpacked elsewhere: what was installed works in any folder.
mv "$work/installed" "$work/prefix"
export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
export LD_LIBRARY_PATH=$work/prefix/lib
flags=$(pkg-config --cflags --libs rails-wgpu)

# No function without a declaration, no declaration without a function.
nm -D --defined-only "$work/prefix/lib/librails_wgpu.so" | sed -n 's/.* T \(rw_.*\)/\1/p' | sort > "$work/exported"
grep -o 'rw_[a-z_]*(' src/capi/rails_wgpu.h | tr -d '(' | sort > "$work/declared"
diff "$work/exported" "$work/declared"
echo "$(wc -l < "$work/declared") functions"

# Runs a program under valgrind. The pool of worker threads lives until the end of the process: what it holds is reachable
# or possibly lost, which is no leak. Drivers of GPUs are not looked for: they are not ours to check.
checked() {
    local kinds=definite,indirect
    VK_DRIVER_FILES=/dev/null valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=$kinds \
        --errors-for-leak-kinds=$kinds "$@"
}

echo "-- test program"
version=$(pkg-config --modversion rails-wgpu)
cc -std=c11 -Wall -Wextra -Werror -g tests/capi/ffi.c -o "$work/ffi" $flags -lpthread -lm
# Each run changes the indexes that it opens.
build() {
    cargo run -q -p rails-bench --no-default-features --features attributes -- index build --device cpu "$@" > /dev/null
}
build --checkpoint assets/demo.safetensors --dtype f16 --lists 4 -o "$work/index"
# Three items by their token embeddings, (1,0) (0,1); (2.5,0); (0,3) (-1,0), with string ids and a year for two.
header='{"embeddings":{"dtype":"F32","shape":[5,2],"data_offsets":[0,40]},'
header+='"lengths":{"dtype":"I64","shape":[3],"data_offsets":[40,64]},'
header+='"ids":{"dtype":"I64","shape":[3],"data_offsets":[64,88]}}'
zero='\0\0\0\0' one='\0\0\x80\x3f' two_and_a_half='\0\0\x20\x40' three='\0\0\x40\x40' minus_one='\0\0\x80\xbf'
whole() { printf '%b\0\0\0\0\0\0\0' "$@"; }
{
    whole "\\x$(printf %x ${#header})"
    printf %s "$header"
    printf "$one$zero$zero$one$two_and_a_half$zero$zero$three$minus_one$zero"
    whole '\x2' '\x1' '\x2' '\x0' '\x1' '\x2'
} > "$work/items.safetensors"
printf 'red\ngr\xc3\xbcn\nblue\n' > "$work/names.txt"
printf 'id,year\nred,1990\nblue,2001\n' > "$work/items.csv"
build --token-embeddings "$work/items.safetensors" --string-ids "$work/names.txt" --attributes "$work/items.csv" \
    -o "$work/tokens"
for folder in index tokens; do cp -R "$work/$folder" "$work/${folder}2"; done
mkdir "$work/named"
cp -R "$work/tokens" "$work/named/idx"
"$work/ffi" assets/demo.safetensors "$version" "$work/index" "$work/tokens"
checked "$work/ffi" assets/demo.safetensors "$version" "$work/index2" "$work/tokens2"

echo "-- examples"
cc -std=c11 -Wall -Wextra -Werror examples/c/search.c -o "$work/search_c" $flags
"$work/search_c" assets/demo.safetensors cpu | tee "$work/c.txt"
c++ -std=c++17 -Wall -Wextra -Werror examples/cpp/search.cpp -o "$work/search_cpp" $flags
"$work/search_cpp" assets/demo.safetensors cpu | tee "$work/cpp.txt"
# Both find the same items.
diff <(sed -n 's/^ *\([0-9]*\)  -\{0,1\}[0-9.]*$/\1/p' "$work/c.txt") <(sed -n 's/^\([0-9]*\)  .*/\1/p' "$work/cpp.txt")
if "$work/search_cpp" no/such.pt cpu; then exit 1; fi
checked "$work/search_cpp" assets/demo.safetensors cpu > /dev/null
# Those of docs/C.md, on an index of the same names.
block() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```$/ { on = 0 } on' docs/C.md; }
block c > "$work/named.c"
block cpp > "$work/named.cpp"
cc -std=c11 -Wall -Wextra -Werror "$work/named.c" -o "$work/named_c" $flags
c++ -std=c++17 -Wall -Wextra -Werror "$work/named.cpp" -o "$work/named_cpp" $flags
for program in named_c named_cpp; do
    found=$(cd "$work/named" && checked "$work/$program")
    [ "$found" = "blue  3" ] || { echo "$program of docs/C.md found: $found" >&2; exit 1; }
done

echo "-- quick start, in an empty folder"
mkdir "$work/empty"
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' docs/QUICK_START.md > "$work/empty/first.c"
commands=$(awk '/^```sh run$/ { on = 1; next } /^```$/ { on = 0 } on' docs/QUICK_START.md)
(cd "$work/empty" && cp "$root/assets/demo.safetensors" . && bash -euo pipefail -c "$commands")
echo "-- C is well"
