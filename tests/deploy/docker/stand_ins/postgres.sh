#!/bin/sh
# What the official image's entrypoint documents of POSTGRES_PASSWORD, POSTGRES_DB and the command's options.
set -eu
if ! test -s "$PGDATA/PG_VERSION"; then
  : "${POSTGRES_PASSWORD:?must be set}"
  umask 077
  printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
  initdb --username postgres --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
  PGPASSWORD=$POSTGRES_PASSWORD; export PGPASSWORD
  pg_ctl --wait --options "-c listen_addresses=''" start
  psql --username postgres --dbname postgres --command "CREATE DATABASE ${POSTGRES_DB:-postgres}"
  pg_ctl --wait --mode fast stop
fi
exec "$@" -c listen_addresses='*'
