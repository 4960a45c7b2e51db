"""List the named models with their parameters, GFLOPs, input and motion block.

Examples:
    python -m motion_jax.tools.models
    python -m motion_jax.tools.models --json

GFLOPs are in the papers' convention, for one clip of 8 frames of 224x224 and 174 classes and each model's defaults.
python -m motion_jax.tools.complexity counts other inputs and options.
"""

from typing import Any

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.models import build_model, list_models
from motion_jax.profiling.operations import count
from motion_jax.training.progress import bar

NUM_CLASSES = 174
INPUT = (8, 224, 224, 3)


def main() -> None:
    """Print the table of named models."""
    arguments = Parser(__doc__).parse_args()
    models = [describe(name) for name in bar(list_models(), desc="counting")]
    print(models_table(models))
    if arguments.json:
        print_json({"models": models, "num_classes": NUM_CLASSES})


def describe(name: str) -> dict[str, Any]:
    """Return the row of one model; block and site are None if it has no motion block."""
    model = build_model(name, num_classes=NUM_CLASSES)
    complexity = count(model, INPUT)
    site, block = next(iter(model.backbone.blocks.items()), (None, None))
    return {
        "name": name,
        "params": sum(complexity.parameters.values()),
        "gflops": complexity.gflops,
        "input": INPUT,
        "block": type(block).__name__ if block else None,
        "site": site,
    }


def models_table(models: list[dict[str, Any]]) -> str:
    """Format one row per model."""
    clip = "x".join(map(str, INPUT))
    rows = [
        (each["name"], each["params"], f"{each['gflops']:8.3f}", clip, each["block"] or "", each["site"] or "")
        for each in models
    ]
    return table(("model", "parameters", "  GFLOPs", "input", "motion block", "after"), rows)


if __name__ == "__main__":
    run(main)
