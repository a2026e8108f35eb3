#!/bin/bash
# What the official image's entrypoint does, in short: a new cluster for POSTGRES_USER on the first start, then the server.
set -euo pipefail

if [ "$(id -u)" = 0 ]; then
    chown postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ "${1:-}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?POSTGRES_PASSWORD is required for a new cluster}"
    POSTGRES_USER=${POSTGRES_USER:-postgres}
    POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    # --no-sync: a first start that is cut short is a cluster nobody has used yet.
    initdb --no-sync -U "$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --auth-local=trust --auth-host=trust --encoding=UTF8 >/dev/null
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    {
        printf "listen_addresses = '*'\n"
        printf "password_encryption = scram-sha-256\n"
        printf "log_timezone = 'UTC'\ntimezone = 'UTC'\n"
    } >>"$PGDATA/postgresql.conf"
    # The initial scripts run on a server that only the local socket can reach, so nobody sees a half-made database.
    pg_ctl -s -w start -o "-c listen_addresses=''" >&2
    if [ "$POSTGRES_DB" != postgres ]; then
        psql -q -U "$POSTGRES_USER" -d postgres -v ON_ERROR_STOP=1 -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    shopt -s nullglob
    for script in /docker-entrypoint-initdb.d/*.sql; do
        psql -q -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v ON_ERROR_STOP=1 -f "$script" || {
            echo "initial script $script failed" >&2
            pg_ctl -s -m immediate stop
            rm -rf "${PGDATA:?}"/*
            exit 1
        }
    done
    pg_ctl -s -w -m fast stop
    unset POSTGRES_PASSWORD
fi

exec "$@"
