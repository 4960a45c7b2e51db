"""Accuracy of the demo's networks over several seeds, and end-point errors of MSNet's displacement."""

from typing import Any

from benchmarks.accuracy import mean_and_spread
from benchmarks.markdown import markdown_table
from motion_jax.profiling.timing import as_line

# Other fields of the same clips: column -> key of the results.
OTHER_FIELDS = {"DIS": "dis", "Farneback": "farneback", "papers' form": "papers_form"}


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown of the regions ``demo`` and ``motion`` for the content of ``demo.json``."""
    recipe = results["recipe"]
    accuracies = [
        (name, *(_mean_and_range(row[measure]) for measure in ("top1", "within_pairs")))
        for name, row in results["networks"].items()
    ]
    motion = dict(results["motion"])
    seeds = motion.pop("seeds")
    errors = [
        (
            kind,
            _error(row["epe"]),
            _error(row["zero"]),
            f"{row['epe']['mean'] / row['zero']:.2f}",
            *(_error(row[key]) for key in OTHER_FIELDS.values()),
        )
        for kind, row in motion.items()
    ]
    where = f"{as_line(results['setting'])}, {results['date']}"
    return {
        "demo": f"""\
{markdown_table(("network", "top-1", "within pairs"), accuracies)}

Width {recipe["width"]}, {recipe["frames"]} frames of {recipe["size"]} pixels, {recipe["steps"]} updates of \
{recipe["batch_size"]} clips. Seeds {_listed(results["seeds"])}, trained on {where}.""",
        "motion": f"""\
{markdown_table(("motion", "end-point error, px", "zero field", "ratio", *OTHER_FIELDS), errors)}

Seeds {_listed(seeds)}, trained on {where}.""",
    }


def _mean_and_range(values: dict[str, Any]) -> str:
    """Format a result of ``over_seeds`` in percent, with the lowest and the highest value."""
    return f"{mean_and_spread(values)} ({min(values['seeds']):.1f} to {max(values['seeds']):.1f})"


def _error(value: dict[str, Any] | float) -> str:
    """Format an error in pixels: of one field, or of the fields of several seeds as in ``over_seeds``."""
    return f"{value['mean']:.2f} ± {value['spread']:.2f}" if isinstance(value, dict) else f"{value:.2f}"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
