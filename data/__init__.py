"""Clips for video models: builders, sampling, transforms, decoding and the Grain pipeline. NumPy arrays in and out."""
