#!/bin/sh
# Install the real peers that the interop tests talk to, where that is wanted: by PEERS=1, or in CI as root.
# Otherwise nothing on the system is touched; the tests that need them are skipped, and the run says so at its end.
# What cannot be had stops no run either: but PEERS=1 asks for DCMTK and Orthanc, and fails without them.
set -eu
cd "$(dirname "$0")/.."
[ "${PEERS:-}" = 1 ] || { [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; } || exit 0

PATH=$PATH:/usr/sbin
say() { printf '%s\n' "$*" >&2; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

missing=
command -v storescu >/dev/null 2>&1 || missing="$missing dcmtk"
command -v Orthanc >/dev/null 2>&1 || missing="$missing orthanc"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
command -v dciodvfy >/dev/null 2>&1 || missing="$missing dicom3tools"
command -v curl >/dev/null 2>&1 || missing="$missing curl"

# The proxies of docs/proxy.md, and a browser: of the two the smaller, which has no window.
wanted=
command -v nginx >/dev/null 2>&1 || wanted="$wanted nginx-light"
command -v caddy >/dev/null 2>&1 || wanted="$wanted caddy"
command -v haproxy >/dev/null 2>&1 || wanted="$wanted haproxy"
command -v chromium >/dev/null 2>&1 || command -v chromium-headless-shell >/dev/null 2>&1 \
    || wanted="$wanted chromium-headless-shell"

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# What makes the images and videos of the tests of bulk data.
command -v ffmpeg >/dev/null 2>&1 || wanted="$wanted ffmpeg"
command -v opj_compress >/dev/null 2>&1 || wanted="$wanted libopenjp2-tools"
command -v ojph_compress >/dev/null 2>&1 || wanted="$wanted openjph-tools"
command -v cjxl >/dev/null 2>&1 || wanted="$wanted libjxl-tools"

# In CI the machine is thrown away, and need not sync each file to its disk.
options=
[ "${CI:-}" != true ] || options="-o DPkg::Options::=--force-unsafe-io"

# RUNLEVEL=1 keeps what is installed from starting as a service on its usual ports.
install() {
    # shellcheck disable=SC2086 # the names are words of their own
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y --no-install-recommends $options "$@" >>"$log" 2>&1
}

all_there() {
    say "Installing peers for the tests:$missing$wanted"
    for attempt in 1 2 3; do
        : >"$log"
        # shellcheck disable=SC2086 # the names are words of their own
        if $as_root apt-get update >>"$log" 2>&1 && install $missing $wanted; then
            return 0
        fi
        say "Attempt $attempt failed."
    done
    # One that is not to be had must not keep the others away.
    : >"$log"
    failed=0
    for name in $missing; do
        install "$name" || failed=1
    done
    for name in $wanted; do
        install "$name" || say "Without $name; its tests are skipped."
    done
    return "$failed"
}

status=0
if [ -n "$missing$wanted" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "Without apt-get the peers are yours to install:$missing$wanted"
        [ -z "$missing" ] || status=1
    elif ! all_there; then
        cat "$log" >&2
        status=1
    fi
fi

# Clients that are no system's packages, into a folder of the build. Nothing that they bring is run when they are installed.
if [ ! -e build/peers/python/dicomweb_client/web.py ] && [ -x .venv/bin/python ]; then
    # What else it needs is in .venv: of other versions there would be two.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 20 --only-binary :all: --no-deps \
        --target build/peers/python 'dicomweb-client>=0.61,<0.62' 'pillow>=11' 'requests>=2.32,<3' 'retrying>=1.3.4,<2' \
        >"$log" 2>&1 || say "Without Python's dicomweb-client; its tests are skipped."
fi
if [ ! -e build/peers/npm/node_modules/dicomweb-client/build/dicomweb-client.js ] && command -v npm >/dev/null 2>&1; then
    mkdir -p build/peers/npm
    npm install --prefix build/peers/npm --ignore-scripts --no-audit --no-fund --no-save --fetch-retries 1 --fetch-timeout 20000 dicomweb-client@0.11.3 \
        >"$log" 2>&1 || say "Without the dicomweb-client of browsers; its tests are skipped."
fi
[ "${PEERS:-}" = 1 ] || exit 0
exit "$status"
