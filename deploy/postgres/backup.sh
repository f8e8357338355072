#!/bin/sh
# Writes the team's databases to standard output as one tar archive; studies may be running.
#
#   docker compose exec -T postgres /srv/bnvit/postgres/backup.sh > backup.tar
#
# Weights and checkpoints are not in it: they are files, in the volume "artifacts".
set -eu
export PGUSER=postgres PGPASSWORD="$POSTGRES_PASSWORD"
folder=$(mktemp -d -p "${SCRATCH:-/var/lib/postgresql}")
trap 'rm -rf "$folder"' EXIT
# MLflow first: it is told of what the store has accepted, so it is never ahead in a backup, and
# what a trial lacks there comes with its end.
for database in mlflow optuna; do
    pg_dump --format=custom --file="$folder/$database.dump" "$database"
done
tar -C "$folder" -cf - mlflow.dump optuna.dump
