"""Epoch records of many runs: parsed, as columns, kept for the next report."""
