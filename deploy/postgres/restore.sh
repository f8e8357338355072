#!/bin/sh
# Reads what backup.sh wrote from standard input into databases that hold no study.
#
#   docker compose up -d prepare
#   docker compose exec -T postgres /srv/bnvit/postgres/restore.sh < backup.tar
#   docker compose up -d
set -eu
export PGUSER=postgres PGPASSWORD="$POSTGRES_PASSWORD"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -xf - || { echo "restore: standard input is not what backup.sh wrote" >&2; exit 1; }
for place in optuna:studies mlflow:runs; do
    found=$(psql -AtX -d "${place%:*}" -c "SELECT count(*) FROM public.${place#*:}" 2>/dev/null || echo 0)
    if [ "$found" != 0 ]; then
        echo "restore: database ${place%:*} holds $found ${place#*:} already; restore into an empty one" >&2
        exit 1
    fi
done
for place in mlflow:bnvit_mlflow optuna:bnvit; do
    pg_restore --clean --if-exists --no-owner --role="${place#*:}" --single-transaction \
        --exit-on-error --dbname="${place%:*}" "$folder/${place%:*}.dump"
done
echo "restored"
