"""Speed and accuracy measured side by side; results are kept as JSON under results/."""
