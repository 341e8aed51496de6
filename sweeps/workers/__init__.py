"""Trials in processes: the driver, and the only modules that import ray."""
