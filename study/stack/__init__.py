"""The services around the workers: Postgres, MLflow, Optuna Dashboard, a login in front of them."""
