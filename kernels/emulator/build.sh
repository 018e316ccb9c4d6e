#!/usr/bin/env bash
# build.sh DIR SOURCE.cu ..: builds the emulator with these kernels as DIR/libcuda.so.1 (also linked as libcuda.so, which some
# loaders try first), and DIR/checked/libcuda.so.1 with the race checker, each with a libnccl.so.2 beside it. FLAGS is passed to
# the compiler. Needs g++.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?missing argument: a folder to build in}"
shift
mkdir -p "$out/checked"
compile=(g++ -std=c++20 -O2 -march=native -fPIC -Wall -Wextra -Wno-unknown-pragmas)
read -ra flags <<<"${FLAGS:-}"
emulator=()
for source in "$here"/*.cpp; do
  object="$out/$(basename "$source" .cpp).o"
  emulator+=("$object")
  if [ ! -e "$object" ] || [ -n "$(find "$source" "$here"/*.hpp -newer "$object")" ]; then
    "${compile[@]}" -c "$source" -o "$object"
  fi
done
plain=()
checked=()
for source in "$@"; do
  name="$(basename "$source" .cu)"
  # Both at once.
  "${compile[@]}" "${flags[@]}" -x c++ -c "$source" -o "$out/$name.cu.o" &
  "${compile[@]}" "${flags[@]}" -fsanitize=thread --param tsan-instrument-func-entry-exit=0 -x c++ -c "$source" \
    -o "$out/checked/$name.cu.o"
  wait "$!"
  plain+=("$out/$name.cu.o")
  checked+=("$out/checked/$name.cu.o")
done
"${compile[@]}" -c "$here/nccl/nccl.cpp" -o "$out/nccl.o"
link() {
  local to="$1"
  shift
  g++ -shared -pthread -Wl,-soname,libcuda.so.1 "${emulator[@]}" "$@" -o "$to/libcuda.so.1"
  ln -sf libcuda.so.1 "$to/libcuda.so"
  g++ -shared -Wl,-soname,libnccl.so.2 "$out/nccl.o" "$to/libcuda.so.1" -lrt -o "$to/libnccl.so.2"
}
link "$out" "${plain[@]}"
link "$out/checked" "${checked[@]}"
