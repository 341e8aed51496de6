"""What a sweep asks for: the YAML, its space and sections, and what can be wrong with them. Decides nothing."""
