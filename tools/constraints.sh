#!/usr/bin/env bash
# Rewrites constraints.txt, for every supported Python and platform at once, and checks that everything has
# wheels on Linux x86-64. Pins already in the file are kept where they still resolve; delete lines (or the
# file) to move them. Needs uv, a maintainer's tool, on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

uv pip compile pyproject.toml --extra calibrate --extra dev --extra fuzz --extra rtx --extra tensorrt \
    --constraint tools/constraints.in --universal --python-version 3.10 \
    --no-annotate --custom-compile-command "make constraints" --quiet --output-file constraints.txt

for python in 3.10 3.11 3.12 3.13; do
    echo "everything, only wheels: x86_64-manylinux_2_28, Python $python"
    uv pip compile pyproject.toml --extra calibrate --extra dev --extra fuzz --constraint constraints.txt \
        --only-binary :all: --python-platform x86_64-manylinux_2_28 --python-version "$python" --quiet >/dev/null
done
