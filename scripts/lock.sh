#!/usr/bin/env bash
# Writes requirements.lock (what the bridge needs) and requirements-dev.lock (what its tests need
# beside that) from pyproject.toml: the newest versions that it allows, each pinned, nothing that
# depends on where they came from. Call it through `make lock`, with the oldest supported Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declared() {
    "$work/venv/bin/python" - "$1" <<'PY'
import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extra = sys.argv[1]
wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
print("\n".join(wanted))
PY
}

frozen() {
    "$work/venv/bin/python" -m pip freeze --exclude pip --exclude setuptools --exclude wheel |
        LC_ALL=C sort --ignore-case
}

only_pins() {
    if grep -vE '^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+$' "$1" >&2; then
        echo "lock.sh: the lines above are not plain name==version pins" >&2
        exit 1
    fi
}

"$PYTHON" -m venv "$work/venv"
declared "" >"$work/run.in"
declared dev >"$work/dev.in"

"$work/venv/bin/python" -m pip install --quiet --requirement "$work/run.in"
frozen >"$work/run.lock"
only_pins "$work/run.lock"

"$work/venv/bin/python" -m pip install --quiet --requirement "$work/run.lock" \
    --requirement "$work/dev.in"
frozen >"$work/all.lock"
only_pins "$work/all.lock"

# The SHA-256 of every file of each version: of each Python, system and processor. pip has no
# command for that; uv asks the index that pip is set up for (by a file or its environment), with
# the same authorities. Further indexes are not asked: one that holds fewer files of a version would
# leave hashes out. No name of an index may get into the result.
set_up() {
    local section
    for section in :env: install global; do
        "$work/venv/bin/python" -m pip config get "$section.$1" 2>/dev/null && return
    done
    return 0
}

index=$(set_up index-url)
cert=$(set_up cert)
unset UV_INDEX_URL
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
[ -z "$cert" ] || export SSL_CERT_FILE="$cert"
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-60}
"$work/venv/bin/python" -m pip install --quiet uv
hashed() {
    printf '%s\n' "$2"
    timeout 600 "$work/venv/bin/uv" pip compile --quiet --generate-hashes --no-deps --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 "$1"
}

names_none() {
    if grep -nE '://|--(extra-)?index|--find-links' "$1" >&2; then
        echo "lock.sh: the lines above name where packages came from" >&2
        exit 1
    fi
}

version=$("$work/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
{
    echo "# Written by 'make lock' with Python $version: the packages of [project.dependencies]"
    echo "# and all that they need. Change pyproject.toml and write it again; do not edit."
    cat "$work/run.lock"
} >requirements.lock
{
    echo "# Written by 'make lock' with Python $version: what the extra 'dev' needs beside"
    echo "# requirements.lock. Change pyproject.toml and write it again; do not edit."
    echo "--requirement requirements.lock"
    LC_ALL=C comm -13 <(LC_ALL=C sort "$work/run.lock") <(LC_ALL=C sort "$work/all.lock") |
        LC_ALL=C sort --ignore-case
} >requirements-dev.lock
hashed "$work/run.lock" "# Written by 'make lock': requirements.lock with the SHA-256 of every file of each version.
# pip checks them: pip install --require-hashes --requirement requirements.hashes" >"$work/run.hashes"
grep -E '^[A-Za-z0-9]' requirements-dev.lock >"$work/dev.lock"
hashed "$work/dev.lock" "# Written by 'make lock': requirements-dev.lock with the SHA-256 of every file of each version.
--requirement requirements.hashes" >"$work/dev.hashes"
names_none "$work/run.hashes"
names_none "$work/dev.hashes"
cp "$work/run.hashes" requirements.hashes
cp "$work/dev.hashes" requirements-dev.hashes
