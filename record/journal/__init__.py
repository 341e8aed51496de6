"""A sweep's journal as it lies on disk or on an object store: where it is, and reading it."""
