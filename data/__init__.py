"""Clips for video models: data sets, sampling, transforms, decoding and the Grain pipeline. NumPy arrays in and out.

The folder ``data/`` of the checkout is imported as ``motion_jax.data`` alone.
"""

if __name__ != "motion_jax.data":
    raise ImportError(f"import motion_jax.data, not {__name__}: install the checkout with pip install -e .")
