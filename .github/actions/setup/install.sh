#!/bin/sh
# Install secure-pipeline from the repository of this action, with each requirement by its hash,
# and the tools that are named. Written by 'secure-pipeline plan --render github'.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
home=${RUNNER_TEMP:?}/secure-pipeline-program
if [ ! -x "$home/bin/secure-pipeline" ]; then
    python3 -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "$root/requirements/runtime.txt" -r "$root/requirements/build.txt"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation "$root"
fi
# Only the program: the interpreter beside it must not be the one that runs the project's tests.
mkdir -p "$home/path"
ln -sf ../bin/secure-pipeline "$home/path/secure-pipeline"
echo "$home/path" >> "${GITHUB_PATH:?}"
[ $# = 0 ] || "$home/bin/secure-pipeline" tools install "$@"
