"""Clips for video models, from video files to batches of NumPy arrays. The folder is imported as motion_jax.data."""

if __name__ != "motion_jax.data":
    raise ImportError(f"import motion_jax.data, not {__name__}: install the checkout with pip install -e .")
