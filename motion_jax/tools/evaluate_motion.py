"""Measure the end-point error of a MotionSqueeze network's displacement where the true motion is known.

Examples:
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18 --clips=100 --json

The data must hold true displacements, as moving_shapes does. The error is the mean distance in pixels between estimated
and true displacement over the cells that move, per class. "true motion" is the mean true displacement, which is the
error of an estimate of no motion at all.
"""

import itertools

import numpy as np

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.data.pipeline import eval_batches
from motion_jax.experiment import load_trained
from motion_jax.inspection.displacement import end_point_error, make_estimator, on_grid

BATCH = 20
TRANSLATIONS = ("move left", "move right", "move up", "move down")


def main() -> None:
    """Print the errors per class."""
    parser = Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="a workdir or a checkpoint in one")
    parser.add_argument("--clips", type=int, default=240, metavar="N", help="clips of the split val; default: 240")
    arguments = parser.parse_args()
    trained = load_trained(arguments.checkpoint)
    dataset = trained.dataset
    if "displacement" not in dataset.example("val", 0):
        raise ValueError("the data of this checkpoint hold no true displacement: give a run on moving_shapes")
    estimate = make_estimator(trained.model, trained.restored.variables)
    fields: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in dataset.labels}
    batches = eval_batches(dataset, batch_size=BATCH)
    for batch in itertools.islice(batches, max(1, arguments.clips // BATCH)):
        displacement, _ = estimate(batch["clips"][:, 0])
        for row in np.flatnonzero(batch["mask"]):
            record = dataset.example("val", int(batch["index"][row]))
            moving = record["moving"]
            fields[dataset.labels[record["label"]]].append(
                (on_grid(displacement[row], grid=moving.shape[1:]), record["displacement"], moving)
            )
    batches.close()
    groups = {name: parts for name, parts in fields.items() if parts}
    groups["all translations"] = [part for name in TRANSLATIONS for part in fields.get(name, [])]
    rows = []
    for name, parts in groups.items():
        found, truth, moving = (np.stack(column) for column in zip(*parts, strict=True))
        still = end_point_error(np.zeros_like(truth), truth, moving)
        rows.append((name, len(parts), round(end_point_error(found, truth, moving), 2), round(still, 2)))
    print(table(("class", "clips", "end-point error (px)", "true motion (px)"), rows))
    if arguments.json:
        print_json({name: {"clips": clips, "epe": error, "motion": motion} for name, clips, error, motion in rows})


if __name__ == "__main__":
    run(main)
