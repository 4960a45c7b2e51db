"""Train a video network.

Examples:
    python train.py --config=configs/moving_shapes.py --workdir=runs/msnet
    python train.py --config=configs/moving_shapes.py:selfynet_tsm_r18,8,smoke --workdir=runs/smoke
    python train.py --config=configs/video_folder.py:msnet_tsm_r18,8 --config.data.root=VIDEOS --workdir=runs/mine

A workdir that holds a checkpoint is resumed from it.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from etils import epath

from motion_jax.cli import Parser, print_json, program, read_config, run
from motion_jax.data.clips.shown_clips import ShownClip, clip_of_example
from motion_jax.data.pipeline import Dataset, eval_batches, train_batches
from motion_jax.data.storage.frames import UnreadableError
from motion_jax.experiment import Experiment, check_restart, initial_variables, open_data
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.inspection.panels import DrawnClip
from motion_jax.inspection.sheets import overview, save
from motion_jax.models import VideoClassifier
from motion_jax.places import check_writable, place
from motion_jax.training import processes
from motion_jax.training.loop import TrainingData, fit
from motion_jax.training.parallel import check_batch_size
from motion_jax.training.profile import step_range
from motion_jax.training.progress import log_compilation

DRAWN = 4  # clips in a picture
WIDTH = 8.0  # inches of a picture


def main() -> None:
    """Read the config, open data and model, and call ``fit``."""
    parser = Parser(__doc__, configurable=True)
    parser.add_argument("--config", metavar="FILE[:ARGUMENTS]", help="config file, with its arguments after a colon")
    parser.add_argument("--workdir", metavar="DIR", help="folder of this run: checkpoints, logs, prepared data")
    profile = "record these updates with JAX's profiler, such as 100:105, in DIR/profile"
    parser.add_argument("--profile", metavar="FIRST:LAST", help=profile)
    change = "values of the config that a restart may change although they change the result"
    parser.add_argument("--change", default="", metavar="KEY[,KEY]", help=change)
    processes.add_arguments(parser)
    arguments = parser.parse_args()
    if not (arguments.config and arguments.workdir):
        parser.error("--config=FILE and --workdir=DIR are needed")
    processes.join(arguments, program=program())
    config = read_config(arguments.config, arguments.changes)
    profile = step_range(arguments.profile) if arguments.profile else None
    allowed = [key for key in arguments.change.split(",") if key]
    result = train(config, place(arguments.workdir), profile=profile, allowed=allowed)
    if arguments.json:
        print_json(result)


def train(
    config: dict, workdir: epath.Path, *, profile: tuple[int, int] | None = None, allowed: Collection[str] = ()
) -> dict[str, float]:
    """Train the experiment of a config, and return what ``fit`` returns.

    ``profile`` is as in ``fit``, and ``allowed`` as in ``check_restart``.
    """
    experiment = Experiment.from_config(config)
    check_restart(experiment, workdir, allowed=allowed)
    # The run keeps absolute paths, so that its checkpoints find the data from any folder.
    config["data"] = dataclasses.asdict(experiment.data)
    processes.compare_config(config)
    if jax.process_index() == 0:
        check_writable(workdir)
    processes.check_shared(workdir)
    # Checked before data are prepared and anything is compiled.
    check_batch_size(experiment.train.batch_size, experiment.parallel)
    check_batch_size(experiment.eval.batch_size, experiment.parallel, field="eval.batch_size")
    if source := experiment.train.init_from:
        place(source)
    dataset = open_data(experiment.data, workdir)
    dataset.size("val")
    if experiment.data.fingerprint not in (None, dataset.fingerprint):
        raise ValueError(
            f"data.fingerprint is {experiment.data.fingerprint!r}, but the records have {dataset.fingerprint!r}: give "
            "the data that it belongs to, or leave it out"
        )
    config["data"]["fingerprint"] = dataset.fingerprint
    changes = check_restart(Experiment.from_config(config), workdir, allowed=allowed)
    model = experiment.model.build(len(dataset.labels))
    views = {name: getattr(experiment.eval, name) for name in ("batch_size", "clips", "crops", "full_resolution")}
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    data = TrainingData(
        train_batches=lambda step: train_batches(
            dataset, batch_size=experiment.train.batch_size, seed=experiment.seed, start_step=step, **share
        ),
        eval_batches=functools.partial(eval_batches, dataset, **views, **share),
        train_size=dataset.size("train"),
        labels=dataset.labels,
        clip_shape=(experiment.data.frames, experiment.data.size, experiment.data.size, 3),
    )
    variables = initial_variables(model, source, seed=experiment.seed) if source else None
    sections = {name: getattr(experiment, name) for name in ("train", "parallel", "checkpoint", "seed")}
    of_run = {"workdir": workdir, "config": config, "profile": profile, "changes": changes}
    of_run["picture"] = picture_of(model, dataset)
    return fit(model, data, **sections, evaluation=experiment.eval, variables=variables, **of_run)


def picture_of(model: VideoClassifier, dataset: Dataset) -> Callable[[Mapping[str, Any]], Callable[[], bytes]]:
    """Return a function from variables to a function that draws what the network sees in four clips, as a PNG."""
    inspect = log_compilation(make_inspector(model, {}), "the network for pictures")

    @functools.cache
    def clips() -> list[ShownClip]:
        return clips_of(dataset)

    def run_network(variables: Mapping[str, Any]) -> Callable[[], bytes]:
        drawn = [
            DrawnClip(
                inspect(clip.frames, variables),
                dataset.labels,
                clip.title,
                clip.times,
                clip.label,
                clip.displacement,
            )
            for clip in clips()
        ]

        def draw() -> bytes:
            file = io.BytesIO()
            save(overview(drawn, width=WIDTH), file, kind="png")
            return file.getvalue()

        return draw

    return run_network


def clips_of(dataset: Dataset) -> list[ShownClip]:
    """Return four fixed clips of the split val, spread so that sorted or repeating classes differ."""
    size = dataset.size("val")
    clips = []
    for index in sorted({min(part * size // DRAWN + part, size - 1) for part in range(DRAWN)}):
        try:
            clips.append(clip_of_example(dataset, "val", index))
        except UnreadableError as error:
            dataset.report_unreadable("val", index, error)
    return clips


if __name__ == "__main__":
    run(main)
