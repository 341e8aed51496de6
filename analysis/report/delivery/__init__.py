"""How a report reaches its readers beside its files: served, as tables of its records, with a schema."""
