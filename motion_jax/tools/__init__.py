"""Command lines: ``python -m motion_jax.tools.<verb>``."""
