"""Training one model: the loop, its steps, its checkpoints and its records."""
