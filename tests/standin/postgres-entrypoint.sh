#!/bin/bash
# Makes the data folder at the first start as POSTGRES_* say and runs the SQL files of the init folder in it: the part of
# the official image's entrypoint that compose.yaml uses. It is not root, and expects that of its caller.
set -euo pipefail
case ${1:-} in -* | '') set -- postgres "$@" ;; esac
if [[ $1 != postgres ]]; then exec "$@"; fi

user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    if [[ -z ${POSTGRES_PASSWORD:-} ]]; then
        echo "POSTGRES_PASSWORD is not set" >&2
        exit 1
    fi
    read -ra options <<<"${POSTGRES_INITDB_ARGS:-}"
    initdb --pgdata="$PGDATA" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --auth-local=trust --auth-host=scram-sha-256 "${options[@]}"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    # Nobody from outside gets in before it is ready: whoever reaches the port has the whole database.
    pg_ctl --pgdata="$PGDATA" --wait --options="${*:2} -c listen_addresses=" start
    if [[ $database != postgres ]]; then createdb --username="$user" --maintenance-db=postgres "$database"; fi
    for file in /docker-entrypoint-initdb.d/*.sql; do
        if [[ -e $file ]]; then psql --set=ON_ERROR_STOP=1 --username="$user" --dbname="$database" --file="$file"; fi
    done
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
fi
exec "$@"
