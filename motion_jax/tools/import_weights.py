"""Make a workdir of weights from elsewhere, for eval.py, train.py and every tool.

Examples:
    python -m motion_jax.tools.import_weights MSNet_R50.pth.tar --config=configs/something_v1.py:msnet_tsm_r50,8 \\
        --workdir=runs/official --labels=labels.txt
    python -m motion_jax.tools.import_weights resnet50.safetensors --config=configs/something_v1.py:tsm_r50,8 \\
        --workdir=runs/imagenet --labels=labels.json --partial

FILE is a checkpoint in an official layout (torchvision, TSM, MotionSqueeze, SELFY, I3D; .pth, .pth.tar and .pt need
PyTorch) or a .safetensors file, also one of tools.export. It must fill the network of the config, with as many classes
as its classifier has; with --partial what it lacks keeps its initial value. No data are opened. train.py with the same
config goes on from there at step 0.
"""

import argparse
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.experiment import Experiment
from motion_jax.tools.complexity import read_config
from motion_jax.training.checkpoints import Checkpoints
from motion_jax.training.metrics import write_atomically
from motion_jax.training.recipe import make_optimizer, make_schedule
from motion_jax.training.state import create_state
from motion_jax.weights.files import read_tensors
from motion_jax.weights.load import ABSENT, LOADED, MISFIT, Assignment, assign, check_complete, number_of_classes


def main() -> None:
    """File and config -> workdir, with a report tensor by tensor."""
    parser = Parser(__doc__)
    parser.add_argument("file", metavar="FILE", help="the weights")
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARGUMENTS]", help="of the network and its data")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="a new one")
    parser.add_argument(
        "--labels", metavar="FILE", help="class names in order: one per line, or JSON; default: 0, 1, .."
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the videos (data.root); may be told later")
    parser.add_argument("--partial", action="store_true", help="let what the file lacks keep its initial value")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    if (arguments.workdir / "checkpoints").exists() or (arguments.workdir / "config.json").exists():
        raise ValueError(f"{arguments.workdir} holds a run already: choose another --workdir")
    config = config_of(arguments)
    experiment = Experiment.from_config(config)
    tensors = read_tensors(arguments.file)
    labels = labels_of(arguments.labels) if arguments.labels else None
    classes = len(labels) if labels and arguments.partial else number_of_classes(tensors, experiment.model.build(1))
    labels = labels or [str(index) for index in range(classes)]
    if len(labels) != classes:
        raise ValueError(
            f"{arguments.file} tells {classes} classes apart and --labels names {len(labels)}: give the labels it was "
            "trained with, or --partial for a new classifier"
        )
    model = experiment.model.build(classes)
    variables, assignments = assign(tensors, model)
    if not any(row.outcome == LOADED and row.target.startswith("params/backbone/") for row in assignments):
        raise ValueError(f"no weight of {arguments.file} fits the backbone of {experiment.model.name}")
    if arguments.partial:
        variables, _ = assign(tensors, model, init=initial(model, seed=experiment.seed))
    else:
        try:
            check_complete(assignments)
        except ValueError as error:
            text = str(error).replace("pass init=variables", "give --partial")
            raise ValueError(f"{arguments.file}: {text}") from error
    save(arguments.workdir, experiment, config, labels, model=model, variables=variables)
    print(report(assignments))
    counts = {outcome: sum(row.outcome == outcome for row in assignments) for outcome in _outcomes(assignments)}
    print(f"\n{', '.join(f'{count} {outcome}' for outcome, count in counts.items())} -> {arguments.workdir}")
    if arguments.json:
        print_json(
            {"workdir": str(arguments.workdir), "classes": classes, "counts": counts, "tensors": as_json(assignments)}
        )


def config_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The config as a plain dict, with a folder of videos: that it exists matters only to those who open it."""
    path, _, config_arguments = arguments.config.partition(":")
    config = read_config(path, config_arguments).to_dict()
    if arguments.root:
        config["data"]["root"] = arguments.root
    elif config["data"]["root"] is None and config["data"]["name"] != "moving_shapes":
        config["data"]["root"] = str(arguments.workdir / "videos")
    return config


def labels_of(path: str) -> list[str]:
    """Class names in order: the lines of a text, a JSON list, or a JSON object from name to position.

    Raises:
        ValueError: if the file is none of these, or a name comes twice.
    """
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        try:
            names = json.loads(text)
            if isinstance(names, dict):
                positions = {int(position): name for name, position in names.items()}
                names = [positions[index] for index in range(len(names))]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is neither a JSON list of names nor an object name -> position 0..n-1") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} holds no class names: expected one per line, or a JSON list of them")
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a class twice: {next(name for name in names if names.count(name) > 1)}")
    return names


def initial(model: nn.Module, *, seed: int) -> dict[str, Any]:
    """Variables of a network as training would start with."""
    clips = jnp.zeros((1, 2, 32, 32, 3))
    # Compiled: initialising a network operation by operation takes minutes.
    return jax.jit(lambda: model.init(jax.random.key(seed), clips, train=False))()


def save(
    workdir: pathlib.Path,
    experiment: Experiment,
    config: dict[str, Any],
    labels: list[str],
    *,
    model: nn.Module,
    variables: dict[str, Any],
) -> None:
    """Write the checkpoint of a run before its first update."""
    data = experiment.data
    # The state is the same whatever the number of clips.
    optimizer = make_optimizer(
        experiment.train, make_schedule(experiment.train, train_size=experiment.train.batch_size)
    )
    shape = (data.frames, data.size, data.size, 3)
    state = create_state(model, optimizer, seed=experiment.seed, clip_shape=shape, variables=variables)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir, section=experiment.checkpoint, config=config, labels=labels) as checkpoints:
        checkpoints.save_latest(state)
    write_atomically(workdir / "config.json", json.dumps(config, indent=1))
    write_atomically(workdir / "labels.json", json.dumps(labels, indent=1, ensure_ascii=False))


def report(assignments: list[Assignment]) -> str:
    """One line per tensor: name, shape, where it went, and what became of it."""
    notes = {ABSENT: "initial value: not in the file", MISFIT: "initial value: another shape"}
    rows = [
        (
            row.name,
            "x".join(map(str, row.shape)) if row.shape else "-" if row.shape is None else "scalar",
            row.target or "-",
            notes.get(row.outcome, row.outcome),
        )
        for row in assignments
    ]
    return table(("tensor", "shape", "target", "outcome"), rows)


def as_json(assignments: list[Assignment]) -> list[dict[str, Any]]:
    """The report for programs."""
    return [{"name": row.name, "shape": row.shape, "target": row.target, "outcome": row.outcome} for row in assignments]


def _outcomes(assignments: list[Assignment]) -> list[str]:
    return list(dict.fromkeys(row.outcome for row in assignments))


if __name__ == "__main__":
    run(main)
