"""Measure the end-point error of a MotionSqueeze network's displacement where the true motion is known.

Examples:
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18 --clips=100 --json

The data must hold true displacements, as moving_shapes does. The error is the mean distance in pixels between estimated
and true displacement over the cells that move. Where the network's cells are smaller than those of the truth, they are
averaged with weights that grow with their confidence. "zero field" is the error of an estimate of no motion at all, and
"ratio" is the network's error over it: below 1 the network sees motion. DIS and Farneback are OpenCV's optical flow on
the same clips.

The second table translates new scenes by whole cells of the network's map, as far as its window reaches and at most 6
cells. The third table sorts the moving cells by confidence: a calibrated confidence is high where the error is low. All
numbers are written to motion.json in the workdir.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from motion_jax.cli import Parser, any_place, print_json, run, table
from motion_jax.data.pipeline import eval_batches
from motion_jax.data.sources.moving_shapes import make_scene, render, truth
from motion_jax.experiment import Trained, load_trained, workdir_of
from motion_jax.inspection.displacement import calibration, end_point_error, make_estimator, on_grid
from motion_jax.inspection.optical_flow import dis, farneback
from motion_jax.places import write_whole

BATCH = 20
GROUPS = {
    "all translations": ("move left", "move right", "move up", "move down"),
    "all rotations": ("rotate left", "rotate right"),
    "all zooms": ("zoom in", "zoom out"),
    "all turning back": ("left then right", "right then left", "up then down", "down then up"),
}
FLOWS = {"dis": dis, "farneback": farneback}
MOST_CELLS = 6
SCENES = 5  # per direction and number of cells

Estimator = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Print the errors per class, per length of the motion and per level of confidence."""
    parser = Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help="a workdir or checkpoint")
    parser.add_argument("--clips", type=int, default=480, metavar="N", help="clips of the split val; default: 480")
    arguments = parser.parse_args()
    trained = load_trained(arguments.checkpoint)
    dataset = trained.dataset
    if "displacement" not in dataset.example("val", 0):
        raise ValueError("the data of this checkpoint hold no true displacement: give a run on moving_shapes")
    estimate = make_estimator(trained.model, trained.restored.variables)
    rows = []
    batches = eval_batches(dataset, batch_size=BATCH)
    for batch in itertools.islice(batches, max(1, arguments.clips // BATCH)):
        clips = batch["clips"][:, 0]
        displacement, confidence = estimate(clips)
        for row in np.flatnonzero(batch["mask"]):
            record = dataset.example("val", int(batch["index"][row]))
            fields = {"found": displacement[row], **{name: flow(clips[row]) for name, flow in FLOWS.items()}}
            known = {"truth": record["displacement"], "moving": record["moving"]}
            rows.append(_on_grid(fields, confidence[row], **known) | {"class": dataset.labels[record["label"]]})
    batches.close()

    groups = {**{name: (name,) for name in dataset.labels}, **GROUPS, "all motions": dataset.labels}
    chosen = {name: [row for row in rows if row["class"] in classes] for name, classes in groups.items()}
    errors = {name: _errors(found) for name, found in chosen.items() if found}
    by_cells = _errors_by_cells(estimate, trained)
    moving = np.concatenate([row["moving"] for row in rows])
    error = np.concatenate([np.linalg.norm(row["found"] - row["truth"], axis=-1) for row in rows])
    levels = calibration(np.concatenate([row["confidence"] for row in rows])[moving], error[moving])
    header = ("class", "clips", "end-point error (px)", "zero field (px)", "ratio", "DIS (px)", "Farneback (px)")
    print(table(header, [(name, *_rounded(row)) for name, row in errors.items()]))
    header = ("translation, cells", "clips", "end-point error (px)", "zero field (px)", "ratio")
    print(f"\n{table(header, [(cells, *_rounded(row)) for cells, row in by_cells.items()])}")
    header = ("confidence", "end-point error (px)")
    print(f"\nMoving cells in groups of equal size:\n{table(header, [_rounded(level) for level in levels])}")
    errors["all translations"]["by_cells"] = by_cells
    errors["all motions"]["calibration"] = levels
    path = workdir_of(trained.restored.path) / "motion.json"
    write_whole(path, json.dumps(errors, indent=1) + "\n")
    print(f"\n-> {path}")
    if arguments.json:
        print_json(errors)


def _on_grid(
    fields: dict[str, np.ndarray], confidence: np.ndarray, *, truth: np.ndarray, moving: np.ndarray
) -> dict[str, Any]:
    """Bring the fields of a clip and the confidence to the cells of the truth."""
    grid = moving.shape[1:]
    weights = {"found": confidence}
    found = {name: on_grid(field, grid=grid, confidence=weights.get(name)) for name, field in fields.items()}
    return {**found, "confidence": on_grid(confidence[..., None], grid=grid)[..., 0], "truth": truth, "moving": moving}


def _errors(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the end-point errors of clips: ``epe`` of the network, ``motion`` of a zero field, and of other flows."""
    truth, moving = (np.stack([row[name] for row in rows]) for name in ("truth", "moving"))

    def error(name: str) -> float:
        return end_point_error(np.stack([row[name] for row in rows]), truth, moving)

    epe, motion = error("found"), end_point_error(np.zeros_like(truth), truth, moving)
    flows = {name: error(name) for name in FLOWS if name in rows[0]}
    return {"clips": len(rows), "epe": epe, "motion": motion, "ratio": epe / motion, **flows}


def _errors_by_cells(estimate: Estimator, trained: Trained) -> dict[int, dict[str, float]]:
    """Return the errors on new scenes that translate by 1, 2, ... whole cells of the map, within the window."""
    block = next(iter(trained.model.backbone.blocks.values()))
    data = trained.experiment.data
    options = {"frames": data.frames, "size": data.size}
    cell = data.size // estimate(np.zeros((1, data.frames, data.size, data.size, 3), np.uint8))[0].shape[2]
    errors = {}
    for cells in range(1, min(block.displacement_reach(), MOST_CELLS) + 1):
        rows = []
        for key, name in itertools.product(range(SCENES), GROUPS["all translations"]):
            scene = make_scene(name, rng=np.random.default_rng([cells, key]), speed=cells * cell, **options)
            displacement, confidence = estimate(render(scene)[None])
            known = dict(zip(("truth", "moving"), truth(scene), strict=True))
            rows.append(_on_grid({"found": displacement[0]}, confidence[0], **known))
        errors[cells] = _errors(rows)
    return errors


def _rounded(row: dict[str, float]) -> list[float]:
    return [round(value, 2) for value in row.values()]


if __name__ == "__main__":
    run(main)
