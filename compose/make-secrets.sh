#!/bin/sh
# Makes the secrets that compose.yaml names: a random password for each Orthanc, once as the
# bridge reads it and once as Orthanc does. What is there already is left alone; to change a
# password, remove both of its files, run this again, and recreate the containers.
#
# The directory is closed to other users of this machine. The files in it are readable by all,
# since compose mounts them with the owner and mode that they have here, and the bridge's
# container runs as a user that this machine does not know.
set -eu
cd "$(dirname "$0")/secrets"
chmod 700 .
umask 077

for side in source target; do
    if [ -e "${side}_password" ] && [ -e "${side}_users.json" ]; then
        echo "secrets/${side}_password and secrets/${side}_users.json: there already"
        continue
    fi
    if [ -e "${side}_password" ]; then
        password=$(cat "${side}_password")
    elif [ -e "${side}_users.json" ]; then
        echo "secrets/${side}_users.json is there without secrets/${side}_password: remove it," \
            "or write the password of the user 'bridge' in it to secrets/${side}_password" >&2
        exit 2
    else
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    fi
    case $password in
        '' | *[\"\\]*)
            echo "secrets/${side}_password is empty or has a \" or a \\ in it: choose another" >&2
            exit 2
            ;;
    esac
    rm -f "${side}_password" "${side}_users.json"
    printf '%s\n' "$password" >"${side}_password"
    printf '{ "RegisteredUsers" : { "bridge" : "%s" } }\n' "$password" >"${side}_users.json"
    chmod 444 "${side}_password" "${side}_users.json"
    echo "secrets/${side}_password and secrets/${side}_users.json: written"
done
