"""Experiments as values: one file per family; arguments after a colon choose model and frames.

The folder ``configs/`` of the checkout is imported as ``motion_jax.configs`` and under no other name.
"""

if __name__ != "motion_jax.configs":
    raise ImportError(f"import motion_jax.configs, not {__name__}: install the checkout with pip install -e .")
