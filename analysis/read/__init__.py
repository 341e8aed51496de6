"""From folders to records: sweeps, runs, and the logs of other trainers."""
