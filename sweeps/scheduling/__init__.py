"""When a trial ends and what that costs: pure decisions on a state."""
