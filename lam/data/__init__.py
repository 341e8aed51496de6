"""From a folder of `.h5` latents to windows in batches: files, index, splits, and demonstration data."""
