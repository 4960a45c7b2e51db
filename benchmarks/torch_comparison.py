"""Tables of benchmarks/torch_training.py, which need no PyTorch."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy import mean_and_spread
from benchmarks.markdown import markdown_table
from benchmarks.real_clips import NETWORKS, measured

# Updates whose losses are compared.
COMPARED_STEPS = (1, 5, 10, 20, 30)


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the Markdown tables ``torch_losses`` and ``torch_runs`` of the results."""
    return {"torch_losses": _losses_table(results), "torch_runs": _runs_table(results)}


def _losses_table(results: Mapping[str, Any]) -> str:
    """Format the relative differences of the losses after the compared numbers of updates."""
    rows = []
    for network, loss in results["losses"].items():
        pairs = {
            "float64, ours and PyTorch": (loss["ours"]["float64"], loss["pytorch"]["float64"]),
            "float32, ours and PyTorch": (loss["ours"]["float32"], loss["pytorch"]["float32"]),
            "ours, float32 and float64": (loss["ours"]["float32"], loss["ours"]["float64"]),
            "PyTorch, float32 and float64": (loss["pytorch"]["float32"], loss["pytorch"]["float64"]),
        }
        for name, (first, second) in pairs.items():
            differences = [abs(first[step - 1] / second[step - 1] - 1) for step in COMPARED_STEPS]
            rows.append((NETWORKS[network], name, *(f"{difference:.0e}" for difference in differences)))
    header = ("network", "losses compared", *(f"step {step}" for step in COMPARED_STEPS))
    return f"{markdown_table(header, rows)}\n\n{measured(results)}"


def _runs_table(results: Mapping[str, Any]) -> str:
    """Format the accuracies of whole runs beside PyTorch's, and their differences."""
    rows = []
    for network, row in results["runs"].items():
        ours, theirs = row["top1"], row["pytorch"]["top1"]
        rows.append(
            (
                NETWORKS[network],
                mean_and_spread(ours),
                mean_and_spread(theirs),
                f"{ours['mean'] - theirs['mean']:+.1f}",
                f"{pooled_spread(ours, theirs):.1f}",
                *(f"{losses['mean']:.2f}" for losses in (row["train_loss"], row["pytorch"]["train_loss"])),
            )
        )
    header = ("network", "top-1, ours", "top-1, PyTorch", "difference", "pooled standard deviation")
    header += ("training loss, ours", "training loss, PyTorch")
    clips = next(iter(results["runs"].values()))["clips"]
    return f"{markdown_table(header, rows)}\n\n{results['collection']}, {clips} clips. {measured(results)}"


def pooled_spread(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Return the pooled standard deviation of two results of ``over_seeds`` with equal numbers of seeds.

    >>> pooled_spread({"spread": 3.0}, {"spread": 4.0})
    3.5355339059327378
    """
    return math.sqrt((first["spread"] ** 2 + second["spread"] ** 2) / 2)
