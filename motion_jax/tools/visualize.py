"""Draw the displacement field that a MotionSqueeze network estimates, beside the true one if it is known.

Examples:
    python -m motion_jax.tools.visualize --checkpoint=runs/demo/msnet_tsm_r18 --output=displacement.png
    python -m motion_jax.tools.visualize --checkpoint=runs/demo/msnet_tsm_r18 --output=four.png --examples=0,2,4,6
"""

import numpy as np

from motion_jax.cli import Parser, any_place, print_json, run, this_machine
from motion_jax.data.pipeline import eval_batches
from motion_jax.experiment import Trained, load_trained
from motion_jax.inspection.displacement import displacement_figure, make_estimator


def main() -> None:
    """Draw the picture."""
    parser = Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help="a workdir or checkpoint")
    parser.add_argument("--output", required=True, type=this_machine, metavar="FILE", help="the picture, .png or .pdf")
    positions = "positions in split val; default: %(default)s"
    parser.add_argument("--examples", default="0,2,4,6", metavar="I,J,..", help=positions)
    arguments = parser.parse_args()
    try:
        examples = [int(index) for index in arguments.examples.split(",")]
    except ValueError:
        parser.error(f"--examples takes positions such as 0,2,4; got {arguments.examples!r}")
    trained = load_trained(arguments.checkpoint)
    records = [trained.dataset.example("val", index) for index in examples]
    clips = views(trained, examples)
    displacement, confidence = make_estimator(trained.model, trained.restored.variables)(clips)
    pair = (clips.shape[1] - 1) // 2  # the middle of the clip
    figure = displacement_figure(
        frames=clips[:, pair],
        estimates=displacement[:, pair],
        confidences=confidence[:, pair],
        truths=[record["displacement"][pair] for record in records] if "displacement" in records[0] else None,
        titles=[trained.dataset.labels[record["label"]] for record in records],
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(f"displacement of {len(examples)} clips -> {arguments.output}")
    if arguments.json:
        print_json({"output": str(arguments.output), "examples": examples})


def views(trained: Trained, examples: list[int]) -> np.ndarray:
    """Return the network's input for some clips of the split val: (n, t, h, w, 3) uint8."""
    found = {}
    for batch in eval_batches(trained.dataset, batch_size=1):
        found[int(batch["index"][0])] = batch["clips"][0, 0]
        if len(found) > max(examples):
            break
    return np.stack([found[index] for index in examples])


if __name__ == "__main__":
    run(main)
