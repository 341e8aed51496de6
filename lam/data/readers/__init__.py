"""Videos of latents as people have them: H5, npy, safetensors, zarr, WebDataset tars and LeRobot data sets."""
