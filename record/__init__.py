"""What a run, a metric's bound, a journal and a verdict are: the ground on which lam, sweeps and analysis stand.

No torch, no ray, no optuna, and nothing of the other packages."""
