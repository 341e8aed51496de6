"""Asking a person which action led from one frame to the next."""
