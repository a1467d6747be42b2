#!/bin/sh
# Makes what compose.dask.yaml and kubernetes/dask.yaml let the parts of a cluster know each other
# by: an authority of their own (dask_ca.pem), and a certificate with its key that it has signed
# (dask_cert.pem, dask_key.pem), good for ten years. The authority's own key is thrown away:
# nobody can sign another. To change them, remove the three, run this again, and recreate all
# containers.
#
# Needs openssl. Modes and owners are those of make-secrets.sh, for the same reasons.
set -eu
cd "$(dirname "$0")/secrets"
chmod 700 .
umask 077

if [ -e dask_ca.pem ] && [ -e dask_cert.pem ] && [ -e dask_key.pem ]; then
    echo "secrets/dask_ca.pem, dask_cert.pem and dask_key.pem: there already"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# shellcheck disable=SC2086
openssl req -x509 $key -keyout "$work/ca.key" -out "$work/ca.pem" -days 3650 \
    -subj /CN=orthanc-bridge-cluster -addext keyUsage=critical,keyCertSign,cRLSign 2>"$work/said" &&
    openssl req -new $key -keyout "$work/key.pem" -out "$work/request.pem" \
        -subj /CN=orthanc-bridge-member 2>"$work/said" &&
    printf 'basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n' >"$work/extensions" &&
    openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
        -set_serial 1 -days 3650 -extfile "$work/extensions" -out "$work/cert.pem" 2>"$work/said" || {
    cat "$work/said" >&2
    exit 2
}
rm -f dask_ca.pem dask_cert.pem dask_key.pem
for name in ca cert key; do
    mv "$work/$name.pem" "dask_$name.pem"
    chmod 444 "dask_$name.pem"
done
echo "secrets/dask_ca.pem, dask_cert.pem and dask_key.pem: written"
