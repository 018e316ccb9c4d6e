#!/usr/bin/env bash
# build.sh OUT [SOURCE.cu ..]: cubins and PTX of the kernels in OUT, by a compiler that is fetched from PyPI into PYTHON, a folder,
# or OUT/python: no CUDA installation, no GPU. 12.9 is the last whose cubins drivers from 525 on load. After a change of a kernel,
# `kernels/build.sh DIR && kernels/compile.py --pack DIR` makes the images that the library brings.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:?a folder to build in}"
shift
python="${PYTHON:-$out/python}"
[ -x "$python/bin/python" ] || python3 -m venv "$python"
"$python/bin/pip" install --quiet --requirement "$here/requirements.txt"
"$python/bin/python" "$here/compile.py" "$out" "$@"
