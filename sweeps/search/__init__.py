"""The next config, as a function of the journal."""
