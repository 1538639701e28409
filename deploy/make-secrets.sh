#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, where they are missing. The folder is closed to other users of this
# machine; the files in it are not, because the containers read them as users that this machine does not know.
set -eu
dir=$(dirname "$0")/secrets
umask 077
mkdir -p "$dir"

random() {
    od -An -N 32 -t x1 /dev/urandom | tr -d ' \n'
}

# keep NAME VALUE: the value goes to a new file, and an old one stays as it is.
keep() {
    [ -e "$dir/$1" ] || printf '%s' "$2" >"$dir/$1"
    chmod 644 "$dir/$1"
}

keep postgres_password "$(random)"
keep database_url "postgres://gainsay:$(cat "$dir/postgres_password")@postgres:5432/gainsay"
keep operator_token "$(random)"
echo "secrets are in $dir"
