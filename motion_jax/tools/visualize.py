"""Draw what a network sees in clips: displacement, confidence and class activation.

Examples:
    python -m motion_jax.tools.visualize --checkpoint=runs/demo/msnet_tsm_r18 --output=displacement.png
    python -m motion_jax.tools.visualize --checkpoint=runs/demo/msnet_tsm_r18 --output=one.pdf --examples=3 --width=86mm
    python -m motion_jax.tools.visualize VIDEO.mp4 --checkpoint=runs/mine --output=seen.webp

The clips are the files, or else examples of the split val of the checkpoint's data. One clip becomes a strip with a
column per frame. Several clips become an overview with a row per clip, at the middle frame, and with the true
displacement if the data hold it. A .webp, .gif or .mp4 shows every frame of an overview. Blocks without a displacement
of their own (SELFY, CorrNet's block) have the one that their similarities imply, and a strip also shows the
similarities of one cell. For a network without a motion block, frames and class activation are drawn.
"""

import argparse
import pathlib
import re

import numpy as np

from motion_jax.cli import Parser, any_place, print_json, run, this_machine
from motion_jax.data.clips.shown_clips import ShownClip, clip_of_example, clips_of_files
from motion_jax.experiment import load_trained
from motion_jax.inspection.animation import FORMATS, write_animation
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.inspection.panels import DrawnClip
from motion_jax.inspection.sheets import animation, frames_of, overview, save, strip
from motion_jax.training.progress import log_compilation

PICTURES = (".png", ".svg", ".pdf")
# Frame rate of an animation if the clips have none, and its limits.
DEFAULT_FPS = 5.0
SLOWEST, FASTEST = 2.0, 30.0


def main() -> None:
    """Draw the picture."""
    parser = Parser(__doc__)
    files = "videos, folders of videos or frames, .txt lists; default: examples of the split val"
    parser.add_argument("files", nargs="*", type=this_machine, metavar="FILE", help=files)
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help="a workdir or checkpoint")
    kinds = ", ".join((*PICTURES, *FORMATS))
    parser.add_argument("--output", required=True, type=this_machine, metavar="FILE", help=f"the picture: {kinds}")
    positions = "positions in split val; default: %(default)s"
    parser.add_argument("--examples", default="0,2,4,6", metavar="I,J,..", help=positions)
    width = "width of the picture in in, cm or mm, such as 86mm for one column of a paper; default: 7in"
    parser.add_argument("--width", default=7.0, type=inches, metavar="LENGTH", help=width)
    activation = "class of the activation; default: the most probable one"
    parser.add_argument("--class", dest="label", metavar="NAME", help=activation)
    arguments = parser.parse_args()
    if arguments.output.suffix.lower() not in (*PICTURES, *FORMATS):
        parser.error(f"--output takes a path ending in {kinds}; got {str(arguments.output)!r}")
    try:
        examples = [int(index) for index in arguments.examples.split(",")]
    except ValueError:
        parser.error(f"--examples takes positions such as 0,2,4; got {arguments.examples!r}")
    trained = load_trained(arguments.checkpoint)
    labels, data = trained.restored.labels, trained.experiment.data
    if arguments.label not in (None, *labels):
        raise ValueError(f"--class={arguments.label} is not a class of this checkpoint: {', '.join(labels)}")
    label = None if arguments.label is None else labels.index(arguments.label)
    if arguments.files:
        shown = clips_of_files(arguments.files, data)
    else:
        shown = [clip_of_example(trained.dataset, "val", index) for index in examples]
    inspect = log_compilation(make_inspector(trained.model, trained.restored.variables), "the network")
    clips = [
        DrawnClip(inspect(clip.frames), labels, clip.title, clip.times, clip.label, clip.displacement) for clip in shown
    ]
    if clips[0].seen.comparison is None:
        name = trained.experiment.model.name
        print(f"{name} has no motion block that compares cells: frames, class activation and classes are drawn")
    path = draw(clips, arguments.output, width=arguments.width, label=label, fps=rate(shown))
    print(f"{len(clips)} clips -> {path}" if len(clips) > 1 else f"{clips[0].title} -> {path}")
    if arguments.json:
        given = {"files": [str(file) for file in arguments.files]} if arguments.files else {"examples": examples}
        print_json({"output": str(path), **given})


def draw(clips: list[DrawnClip], output: pathlib.Path, *, width: float, label: int | None, fps: float) -> pathlib.Path:
    """Write the picture of the clips and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() in FORMATS:
        return write_animation(output, animation(clips, frames_of(clips), width=width, label=label), fps=fps)
    figure = strip(clips[0], width=width, label=label) if len(clips) == 1 else overview(clips, width=width, label=label)
    save(figure, output)
    return output


def rate(clips: list[ShownClip]) -> float:
    """Return the frame rate of an animation: that of the sampled frames of the first clip."""
    times = clips[0].times
    if times is None or len(times) < 2 or times[-1] <= times[0]:
        return DEFAULT_FPS
    return float(np.clip((len(times) - 1) / (times[-1] - times[0]), SLOWEST, FASTEST))


def inches(text: str) -> float:
    """Parse a length as the ``type`` of an option, and return inches.

    >>> round(inches("86mm"), 3)
    3.386
    """
    units = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}
    match = re.fullmatch(r"(\d+(?:\.\d*)?)(in|cm|mm)", text)
    if not match or not 2 <= float(match[1]) * units[match[2]] <= 40:
        raise argparse.ArgumentTypeError(f"expected a length from 2in to 40in, such as 7in or 86mm; got {text!r}")
    return float(match[1]) * units[match[2]]


if __name__ == "__main__":
    run(main)
