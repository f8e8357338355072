#!/bin/sh
# Reads what backup.sh wrote from standard input into databases that hold no study.
#
#   docker compose up -d prepare
#   docker compose exec -T postgres /srv/bnvit/postgres/restore.sh < backup.tar
#   docker compose up -d
set -eu
export PGUSER=postgres PGPASSWORD="$POSTGRES_PASSWORD"
folder=$(mktemp -d -p "${SCRATCH:-/var/lib/postgresql}")
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "restore: $1" >&2
    exit 1
}

tar -C "$folder" -xf - || fail "standard input is not what backup.sh wrote"
for database in mlflow optuna; do
    pg_restore --list "$folder/$database.dump" >/dev/null || fail "$database.dump is damaged"
done
for place in optuna:studies mlflow:runs; do
    database=${place%:*} table=${place#*:}
    is_there=$(psql -AtX -d "$database" -c "SELECT to_regclass('public.$table') IS NOT NULL")
    [ "$is_there" = t ] || continue
    found=$(psql -AtX -d "$database" -c "SELECT count(*) FROM public.$table")
    [ "$found" = 0 ] || fail "database $database holds $found $table already; restore into an empty one"
done
for place in mlflow:bnvit_mlflow optuna:bnvit; do
    database=${place%:*} owner=${place#*:}
    pg_restore --clean --if-exists --no-owner --role="$owner" --single-transaction --exit-on-error \
        --dbname="$database" "$folder/$database.dump" ||
        fail "database $database was not restored; begin again with an empty server"
done
echo "restored"
