"""The service: one search as a study in Postgres, workers that fill it, MLflow that records it."""
