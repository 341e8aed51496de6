"""A sweep's folder and journal: state, writers, stores, locks and leases."""
