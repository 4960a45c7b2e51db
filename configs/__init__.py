"""Experiments as values: one file per family, arguments after a colon choose model and frames."""
