"""What trackers are fed with: a queue and a thread, a view of a run, and MLflow reduced to what is needed."""
