#!/usr/bin/env bash
# build.sh OUT [SOURCE.cu ..]: compiles the kernels to cubins and PTX in OUT. The compiler comes from PyPI, into the virtual
# environment PYTHON or OUT/python; neither a CUDA installation nor a GPU is needed. Cubins of CUDA 12.9, the last release of
# CUDA 12, load on drivers from 525 on. After a change of a kernel, `kernels/build.sh DIR && kernels/compile.py --pack DIR` updates
# the images that the library embeds.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?missing argument: a folder to build in}"
shift
python="${PYTHON:-$out/python}"
[ -x "$python/bin/python" ] || python3 -m venv "$python"
"$python/bin/pip" install --quiet --requirement "$here/requirements.txt"
"$python/bin/python" "$here/compile.py" "$out" "$@"
