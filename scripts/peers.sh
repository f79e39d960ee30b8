#!/bin/sh
# Install the real peers that the interop tests talk to, where that is wanted: by PEERS=1, or in CI as root.
# Otherwise nothing on the system is touched; the tests that need them are skipped, and the run says so at its end.
set -eu
[ "${PEERS:-}" = 1 ] || { [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; } || exit 0

PATH=$PATH:/usr/sbin
missing=
command -v storescu >/dev/null 2>&1 || missing="$missing dcmtk"
command -v Orthanc >/dev/null 2>&1 || missing="$missing orthanc"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
command -v dciodvfy >/dev/null 2>&1 || missing="$missing dicom3tools"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Without apt-get the peers are yours to install:$missing" >&2
    [ "${PEERS:-}" != 1 ]
    exit
fi
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo "Installing peers for the tests:$missing" >&2
# RUNLEVEL=1 keeps Debian's Orthanc from starting as a service on its usual ports.
log=$(mktemp)
for attempt in 1 2 3; do
    # shellcheck disable=SC2086 # the names are words of their own
    if { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    echo "Attempt $attempt failed." >&2
done
cat "$log" >&2
rm -f "$log"
exit 1
