"""What guides training besides the prediction of the next frame: where the picture changes, and true actions."""
