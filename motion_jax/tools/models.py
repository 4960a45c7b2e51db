"""List the named models: parameters, GFLOPs in the papers' convention, input, motion block and where it stands.

Examples:
    python -m motion_jax.tools.models
    python -m motion_jax.tools.models --json

Counted from shapes for a clip of 8 frames of 224x224 and 174 classes, each model as build_model makes it by default.
Other inputs and options: python -m motion_jax.tools.complexity.
"""

from typing import Any

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.models import build_model, list_models
from motion_jax.profiling.operations import count
from motion_jax.training.progress import bar

NUM_CLASSES = 174
INPUT = (8, 224, 224, 3)


def main() -> None:
    """The table of named models."""
    parser = Parser(__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    models = [describe(name) for name in bar(list_models(), desc="counting")]
    print(models_table(models))
    if arguments.json:
        print_json({"models": models, "num_classes": NUM_CLASSES})


def describe(name: str) -> dict[str, Any]:
    """What the table says of one model: block and site are None where it has no motion block."""
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
    """One row per model."""
    rows = [
        (
            model["name"],
            model["params"],
            f"{model['gflops']:8.3f}",
            "x".join(map(str, model["input"])),
            model["block"] or "",
            model["site"] or "",
        )
        for model in models
    ]
    return table(("model", "parameters", "  GFLOPs", "input", "motion block", "after"), rows)


if __name__ == "__main__":
    run(main)
