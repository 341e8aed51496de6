"""Runs that others' trackers keep: offline W&B, TensorBoard, MLflow and Optuna, read by the real libraries."""
