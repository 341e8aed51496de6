"""What one model reaches on a split of the data: every `val/*` number, the probe and the pictures."""
