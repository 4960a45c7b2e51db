"""Comparisons of speed and accuracy with other libraries; results are JSON files in results/."""
