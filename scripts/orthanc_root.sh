#!/usr/bin/env bash
# Puts the Orthanc of another Debian into build/orthanc/SUITE and prints the path of an executable
# that runs it: scripts/orthanc_root.sh trixie
#
# Packages are downloaded by apt-get from this machine's own mirror, verified with Debian's keys,
# and unpacked; nothing is installed, no maintainer script runs, and root is not needed. The
# executable starts Orthanc with the loader and the libraries of that Debian.
# A second call starts at once. To fetch newer packages: rm -r build/orthanc/SUITE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PACKAGES=(orthanc orthanc-postgresql)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

die() {
    printf '[orthanc-root] %s\n' "$*" >&2
    exit 2
}

[[ $# -eq 1 && $1 =~ ^[a-z]+$ ]] || die "name a suite of Debian, such as trixie or sid"
SUITE=$1
CACHE=$PWD/build/orthanc
DIRECTORY=$CACHE/$SUITE
EXECUTABLE=$DIRECTORY/Orthanc

if [[ -x $EXECUTABLE ]]; then
    printf '%s\n' "$EXECUTABLE"
    exit
fi
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || die "there is no $tool: this is no Debian"
done
[[ -r $KEYRING ]] || die "there is no $KEYRING (package debian-archive-keyring)"
MIRROR=$(apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
[[ -n $MIRROR ]] || die "apt knows no mirror of Debian here (has apt-get update run?)"

mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/.$SUITE.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
APT=$WORK/apt
mkdir -p "$APT"/{etc/sources.list.d,lists/partial,archives/partial} "$WORK/root"
: >"$APT/status"
# Dependencies of essential packages are named by nobody, hence libc6 and those around it come
# because the status file is empty: everything that is needed is downloaded.
printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$MIRROR" "$SUITE" >"$APT/etc/sources.list"
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$APT/etc/sources.list" \
        -o Dir::Etc::SourceParts="$APT/etc/sources.list.d" \
        -o Dir::State::Lists="$APT/lists" -o Dir::State::Status="$APT/status" \
        -o Dir::Cache="$APT" -o Dir::Cache::Archives="$APT/archives" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 -o Debug::NoLocking=1 "$@" </dev/null >&2
}
apt update || die "the packages of $SUITE cannot be listed: is its mirror reachable?"
apt install --download-only --no-install-recommends --yes "${PACKAGES[@]}" ||
    die "the packages of $SUITE cannot be downloaded"
for package in "$APT"/archives/*.deb; do
    dpkg-deb --extract "$package" "$WORK/root"
done
rm -rf "$APT"

cd "$WORK/root"
loader=$(find . -name 'ld-linux*.so.[0-9]' -printf '%P\n' -quit)
[[ -n $loader ]] || die "there is no loader among the packages of $SUITE"
libraries=$(find . -name 'libc.so.6' -printf '%P\n' -quit)
libraries=${libraries%/*}
dictionary=$(find usr/share -name dicom.dic -printf '%h\n' -quit)
cat >"$WORK/Orthanc" <<WRAPPER
#!/bin/sh
# Written by scripts/orthanc_root.sh: the Orthanc of Debian $SUITE, with its own libraries.
root=\$(dirname "\$(readlink -f "\$0")")/root
export DCMDICTPATH="\$root/$dictionary/dicom.dic:\$root/$dictionary/private.dic"
export GCONV_PATH="\$root/$libraries/gconv"
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib" "\$root/usr/sbin/Orthanc" "\$@"
WRAPPER
chmod 755 "$WORK/Orthanc" "$WORK"
"$WORK/Orthanc" --version >/dev/null || die "the Orthanc of $SUITE does not start here"
mv -T "$WORK" "$DIRECTORY" 2>/dev/null || [[ -x $EXECUTABLE ]] || die "cannot write $DIRECTORY"
printf '%s\n' "$EXECUTABLE"
