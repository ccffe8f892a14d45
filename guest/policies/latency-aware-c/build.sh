#!/bin/sh
# Builds the policy: build.sh [OUTPUT]
#
# clang    compiles; any that knows the target wasm32 (`apt-get install clang`, or `CLANG` names one); tried with 19
# linker   `wasm-component-ld` comes with rustup's Rust, and so does the `wasm-ld` that it calls; it links and makes the component
#
# `bindings/` is what `wit-bindgen c --world llambo:policy/balancer@0.1.0 --no-helpers --no-object-file --out-dir bindings ../../../wit` writes, by
# `cargo install wit-bindgen-cli --version 0.61.1`. The linker reads the interface once more.
set -eu
cd "$(dirname "$0")"
output=${1:-../../target/latency-aware-c.wasm}
rustlib=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
PATH=$rustlib/gcc-ld:$rustlib:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in policy memory bindings/balancer; do
    "${CLANG:-clang}" --target=wasm32-unknown-unknown -std=c11 -Os -Wall -Wextra -Wno-unused -ffreestanding -mbulk-memory -Iinclude -Ibindings \
        -c "$source.c" -o "$work/$(basename "$source").o"
done
# the linker wants a package with one world
mkdir "$work/wit"
cp ../../../wit/policy.wit "$work/wit"
echo 'package my:policy; world policy { include llambo:policy/balancer@0.1.0; }' > "$work/wit/world.wit"
mkdir -p "$(dirname "$output")"
# a stack of 32 KiB in front of everything, so that it traps at its end instead of writing over data
wasm-component-ld --component-type "$work/wit" --no-entry --gc-sections --strip-all --stack-first -zstack-size=32768 \
    "$work"/*.o -o "$output"
