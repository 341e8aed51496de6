"""From a comparison to a decision: what each arm did, what is required, go or no-go, what to run next and watch."""
