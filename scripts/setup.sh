#!/bin/sh
# Make the virtual environment that every word of the Makefile shares: Stowkeeper from this folder, and the development
# tools. Needs a Python 3.11 to 3.14 and nothing else. Safe to run again: what is there and works is kept.
#
#   scripts/setup.sh [FOLDER]       default .venv; PYTHON=… names the interpreter to use
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv}

say() { printf '%s\n' "$*" >&2; }

# Tell whether an interpreter runs and is one of ours (pyproject.toml, requires-python).
fits() {
    "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && { command -v "$PYTHON"; return; }
        say "PYTHON=$PYTHON does not run, or is not a Python 3.11 to 3.14."
        exit 1
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if fits "$name"; then
            command -v "$name"
            return
        fi
    done
    say "Stowkeeper needs Python 3.11, 3.12, 3.13 or 3.14, and none was found on the path as python3 or python3.N."
    say "Install one (Debian, Ubuntu: apt-get install python3 python3-venv; Fedora: dnf install python3;"
    say "macOS: brew install python) or name it: make run PYTHON=/path/to/python3"
    exit 1
}

works() { fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

# Debian ships the venv module without the pip that it puts in (package python3-venv), so there are several ways.
make_venv() {
    log=$(mktemp)
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$log" 2>&1 && works && return
    rm -rf "$venv"
    "$python" -m virtualenv --quiet "$venv" >>"$log" 2>&1 && works && return
    rm -rf "$venv"
    if command -v virtualenv >/dev/null 2>&1; then
        virtualenv --quiet --python "$python" "$venv" >>"$log" 2>&1 && works && return
        rm -rf "$venv"
    fi
    borrowed=$(mktemp -d)
    if "$python" -m pip install --quiet --target "$borrowed" virtualenv >>"$log" 2>&1; then
        PYTHONPATH=$borrowed "$python" -m virtualenv --quiet "$venv" >>"$log" 2>&1 || true
    fi
    rm -rf "$borrowed"
    works && return
    rm -rf "$venv"
    if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv; } >>"$log" 2>&1 || true
        "$python" -m venv "$venv" >>"$log" 2>&1 && works && return
        rm -rf "$venv"
    fi
    say "$python cannot make a virtual environment. What was tried said:"
    sed 's/^/  /' "$log" >&2
    rm -f "$log"
    say "Install what it lacks, then try again. Debian, Ubuntu: apt-get install python3-venv"
    say "(or apt-get install python3-pip). Elsewhere: python3 -m ensurepip, or pip install virtualenv."
    exit 1
}

if ! works; then
    python=$(find_python)
    say "Making $venv with $("$python" --version) ($python)."
    make_venv
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# Dependency groups came with pip 25.1.
if ! "$venv/bin/python" -c '
import pip
raise SystemExit(tuple(int(part) for part in pip.__version__.split(".")[:2]) < (25, 1))'; then
    pip install --upgrade 'pip>=25.1'
fi
say "Installing Stowkeeper and its development tools into $venv."
pip install --editable . --group dev
pwd -P >"$venv/.ready"
