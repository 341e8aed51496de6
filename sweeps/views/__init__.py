"""A sweep as people and other programs see it: terminal, MLflow, Optuna. All of it can be rebuilt from the journal."""
