"""What a training is to those that run many of them: its config, its metrics, its data, its cost, its verdicts."""
