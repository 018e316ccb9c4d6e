#!/usr/bin/env bash
# Runs cargo for aarch64 on an x86-64 Debian 12, and programs with qemu: `tests/aarch64/run.sh FOLDER COMMAND ARGUMENTS..`, for
# example `tests/aarch64/run.sh /tmp/aarch64 test -p cloze-tensor --lib gemm`. QEMU_CPU chooses the processor: cortex-a53 has
# NEON alone, max everything that qemu emulates.
#
# The standard library comes from Debian's rustc-web, which is unpacked into FOLDER, not installed. The linker, the C library
# and qemu are installed. Exits with 77 if the packages cannot be had.
set -euo pipefail
mkdir -p "$1"
folder="$(realpath "$1")"
shift

# Joined by &&, because `set -e` has no effect where the result is tested.
packages() {
  dpkg --add-architecture arm64 &&
    apt-get update -qq &&
    apt-get install -qq -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user &&
    mkdir -p "$folder/packages" "$folder/root" &&
    cd "$folder/packages" &&
    apt-get download -qq rustc-web libstd-rust-web-dev libstd-rust-web-1.96 libllvm22 libstd-rust-web-dev:arm64 &&
    printf '%s\n' *.deb | xargs -I{} dpkg -x {} "$folder/root"
}

if [ ! -x "$folder/rustc" ]; then
  (packages) >"$folder/log" 2>&1 || { tail -n 1 "$folder/log"; exit 77; }
  root="$folder/root/usr"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$root/lib/x86_64-linux-gnu" "$root/bin/rustc" >"$folder/rustc"
  chmod +x "$folder/rustc"
fi
export RUSTC="$folder/rustc" CARGO_TARGET_DIR="$folder/target"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
command="$1"
shift
exec cargo "$command" --target aarch64-unknown-linux-gnu "$@"
