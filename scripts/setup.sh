#!/usr/bin/env bash
# Installs what `make` needs, one step for each argument; every step is instant when there is
# nothing to do. The Makefile calls it; by hand: scripts/setup.sh orthanc
#
#   venv        .venv from requirements.lock, emptied first so that it holds exactly the lock
#   package     this repository into .venv, in editable mode
#   dev         requirements-dev.lock into .venv
#   builder     build/builder: an environment with only what builds wheel and Debian package
#   orthanc     Debian's orthanc, unless an Orthanc executable is here; its service is not started
#   test-tools  dcmtk, dicom3tools, chromium, prometheus, nginx, orthanc-dicomweb, postgresql and
#               orthanc-postgresql, which some tests use; they say so when they lack them. No
#               service is started
#   bench-tools orthanc-gdcm, libgdcm-tools and, in build/cloner, orthanc-tools: what `make bench`
#               compares with; it leaves out what is not there, and says so
#   container-tools debootstrap, for `make test-container`
#
# PYTHON names the interpreter (3.11 or newer). pip and apt-get keep this machine's configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# Debian keeps daemons in /usr/sbin, which is not on an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '[setup] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 2
}
have() { command -v "$1" >/dev/null 2>&1; }

can_be_root() { [[ $(id -u) -eq 0 ]] || { have sudo && sudo -n true 2>/dev/null; }; }
as_root() { if [[ $(id -u) -eq 0 ]]; then env "$@"; else sudo -n env "$@"; fi; }

# Debian packages start their service when they are installed. Nothing here needs Orthanc's on
# port 8042, so a policy forbids it meanwhile, unless the machine has a policy of its own.
POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=no
forbid_service_starts() {
    [[ -e $POLICY ]] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    POLICY_IS_OURS=yes
    as_root chmod 755 "$POLICY"
}
remove_our_policy() { if [[ $POLICY_IS_OURS == yes ]]; then as_root rm -f "$POLICY"; fi; }
trap remove_our_policy EXIT

# Without this a service would come up with the next boot, on its default ports.
keep_off_at_boot() {
    local package
    for package in "$@"; do
        [[ -e /etc/init.d/$package ]] || continue
        as_root update-rc.d "$package" disable >/dev/null 2>&1 ||
            say "the service '$package' could not be disabled; it may start with the next boot"
    done
}

APT_LISTS=old
apt_install() {
    if [[ $APT_LISTS == old ]]; then
        as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update \
            </dev/null || say "apt-get update did not succeed; trying with the lists there are"
        APT_LISTS=fresh
    fi
    say "installing with apt-get: $*"
    as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" </dev/null >/dev/null
}

require_python() {
    have "$PYTHON" || die "there is no '$PYTHON'. Install Python 3.11 or newer (Debian:" \
        "apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11 ..."
    "$PYTHON" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' ||
        die "'$PYTHON' is $("$PYTHON" --version 2>&1); 3.11 or newer is needed." \
            "Name another one: make PYTHON=/path/to/python3.11 ..."
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return
    if ! have apt-get || ! can_be_root; then
        die "'$PYTHON' cannot make virtual environments. Run as root:" \
            "apt-get install python3-venv"
    fi
    apt_install python3-venv
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        die "'$PYTHON' cannot make virtual environments, and Debian's python3-venv does not" \
            "belong to it. Name one that can: make PYTHON=/path/to/python3.11 ..."
}

step_venv() {
    require_python
    say "making $VENV from requirements.lock"
    "$PYTHON" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install --quiet --require-hashes --requirement requirements.hashes
}

step_package() {
    "$VENV/bin/python" -m pip install --quiet --no-deps --editable .
}

step_dev() {
    say "adding requirements-dev.lock to $VENV"
    "$VENV/bin/python" -m pip install --quiet --require-hashes \
        --requirement requirements-dev.hashes
}

# A few seconds, where all of requirements-dev.lock takes minutes on a slow network.
step_builder() {
    local wanted=build/builder/requirements.txt
    require_python
    say "making build/builder from requirements-dev.hashes"
    "$PYTHON" -m venv --clear build/builder
    awk -v names='^(build|hatchling|packaging|pathspec|pluggy|pyproject-hooks|tomlkit|trove-classifiers)==' \
        '/^[^ #]/ { wanted = $0 ~ names } wanted' requirements-dev.hashes >"$wanted"
    build/builder/bin/python -m pip install --quiet --require-hashes --requirement "$wanted"
}

step_orthanc() {
    have Orthanc && return
    have apt-get || die "there is no Orthanc on PATH and no apt-get here. Install Orthanc 1.10 or" \
        "newer so that the command Orthanc is on PATH."
    can_be_root || die "there is no Orthanc on PATH. Run as root: apt-get install orthanc"
    forbid_service_starts
    apt_install orthanc
    keep_off_at_boot orthanc
    have Orthanc || die "apt-get installed orthanc, but there is still no Orthanc on PATH"
}

step_test_tools() {
    local missing=()
    have storescu || missing+=(dcmtk)
    have dciodvfy || missing+=(dicom3tools)
    have chromium || missing+=(chromium)
    if ! have promtool || ! have prometheus; then missing+=(prometheus); fi
    have nginx || missing+=(nginx)
    [[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]] || missing+=(orthanc-dicomweb)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
    [[ -e /usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so ]] ||
        missing+=(orthanc-postgresql)
    [[ ${#missing[@]} -eq 0 ]] && return
    if ! have apt-get || ! can_be_root; then
        say "not here: ${missing[*]}; the tests that use them will say so." \
            "To have them, as root: apt-get install ${missing[*]}"
        return
    fi
    forbid_service_starts
    apt_install "${missing[@]}" ||
        say "not installed: ${missing[*]}; the tests that use them will say so"
    keep_off_at_boot "${missing[@]}"
}

step_container_tools() {
    have debootstrap && return
    have apt-get || die "there is no debootstrap and no apt-get here"
    can_be_root || die "there is no debootstrap. Run as root: apt-get install debootstrap"
    apt_install debootstrap
}

CLONER=build/cloner
step_bench_tools() {
    local missing=()
    [[ -e /usr/share/orthanc/plugins/libOrthancGdcm.so ]] || missing+=(orthanc-gdcm)
    have gdcmconv || missing+=(libgdcm-tools)
    if [[ ${#missing[@]} -gt 0 ]]; then
        if have apt-get && can_be_root; then
            apt_install "${missing[@]}" || say "not installed: ${missing[*]}"
        else
            say "not here: ${missing[*]}. To have them, as root: apt-get install ${missing[*]}"
        fi
    fi
    [[ -x $CLONER/bin/python ]] && return
    say "making $CLONER with orthanc-tools"
    if ! { "$PYTHON" -m venv "$CLONER" && "$CLONER/bin/python" -m pip install --quiet orthanc-tools; }; then
        rm -rf "$CLONER"
        say "orthanc-tools is not installed"
    fi
}

[[ $# -gt 0 ]] || die "name a step: venv, package, dev, builder, orthanc, test-tools, bench-tools, container-tools"
for step in "$@"; do
    case $step in
        venv | package | dev | builder | orthanc) "step_$step" ;;
        test-tools) step_test_tools ;;
        bench-tools) step_bench_tools ;;
        container-tools) step_container_tools ;;
        *) die "unknown step '$step': venv, package, dev, builder, orthanc, test-tools, bench-tools, container-tools" ;;
    esac
done
