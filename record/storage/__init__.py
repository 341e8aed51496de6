"""Sweeps on stores (`s3://`, `gs://`, `abfs://`): addresses, whom to trust, requests, copies on this machine."""
