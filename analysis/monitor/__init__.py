"""One run's health, now or live: rules, alerts, likely causes, and whether its numbers fit together."""
