"""Make a workdir from weights of other programs, for train.py, eval.py and every command.

Examples:
    python -m motion_jax.tools.import_weights MSNet_R50.pth.tar --config=configs/something_v1.py:msnet_tsm_r50,8 \\
        --workdir=runs/official --labels=labels.txt
    python -m motion_jax.tools.import_weights resnet50.safetensors --config=configs/something_v1.py:tsm_r50,8 \\
        --workdir=runs/imagenet --labels=labels.json --partial

FILE is a checkpoint in an official layout (torchvision, TSM, MotionSqueeze, SELFY, I3D; .pth, .pth.tar and .pt need
PyTorch) or a .safetensors file, also one of tools.export. It must hold every tensor of the config's network; with
--partial, missing tensors keep their initial values. No data are opened. train.py with the same config continues from
this workdir at step 0.
"""

import collections
import json
import os

from motion_jax.cli import Parser, any_place, print_json, read_config, run, table, this_machine
from motion_jax.experiment import Experiment, random_variables, save_initial, with_root
from motion_jax.places import is_bucket, place
from motion_jax.weights.files import read_tensors
from motion_jax.weights.load import ABSENT, LOADED, MISFIT, Assignment, assign, check_complete, number_of_classes


def main() -> None:
    """Write the workdir and print a report tensor by tensor."""
    parser = Parser(__doc__, configurable=True)
    parser.add_argument("file", type=any_place, metavar="FILE", help="the weights")
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARGUMENTS]", help="config of network and data")
    parser.add_argument("--workdir", required=True, type=any_place, metavar="DIR", help="a new folder")
    names = "class names: one per line, or JSON; default: 0, 1, .."
    parser.add_argument("--labels", type=any_place, metavar="FILE", help=names)
    videos = "folder of the videos (data.root); may be given later"
    parser.add_argument("--root", type=this_machine, metavar="DIR", help=videos)
    parser.add_argument("--partial", action="store_true", help="let missing tensors keep their initial values")
    arguments = parser.parse_args()
    if (arguments.workdir / "checkpoints").exists() or (arguments.workdir / "config.json").exists():
        raise ValueError(f"{arguments.workdir} holds a run already: choose another --workdir")
    changes = {**arguments.changes, **({"data.root": str(arguments.root)} if arguments.root else {})}
    root = "videos" if is_bucket(arguments.workdir) else str(arguments.workdir / "videos")
    config = with_root(read_config(arguments.config, changes), root)
    experiment = Experiment.from_config(config)
    tensors = read_tensors(arguments.file)
    labels = labels_of(arguments.labels) if arguments.labels else None
    classes = len(labels) if labels and arguments.partial else number_of_classes(tensors, experiment.model.build(1))
    labels = labels or [str(index) for index in range(classes)]
    if len(labels) != classes:
        raise ValueError(
            f"{arguments.file} has {classes} classes and --labels has {len(labels)}: give the labels it was trained "
            "with, or --partial for a new classifier"
        )
    model = experiment.model.build(classes)
    variables, assignments = assign(tensors, model)
    if not any(row.outcome == LOADED and row.target.startswith("params/backbone/") for row in assignments):
        raise ValueError(f"no weight of {arguments.file} fits the backbone of {experiment.model.name}")
    if arguments.partial:
        variables, _ = assign(tensors, model, init=random_variables(model, seed=experiment.seed))
    else:
        try:
            check_complete(assignments)
        except ValueError as error:
            text = str(error).replace("pass init=variables", "give --partial")
            raise ValueError(f"{arguments.file}: {text}") from error
    save_initial(arguments.workdir, config, labels, variables=variables)
    print(report(assignments))
    counts = collections.Counter(row.outcome for row in assignments)
    print(f"\n{', '.join(f'{count} {outcome}' for outcome, count in counts.items())} -> {arguments.workdir}")
    if arguments.json:
        tensors = [{name: getattr(row, name) for name in ("name", "shape", "target", "outcome")} for row in assignments]
        print_json({"workdir": str(arguments.workdir), "classes": classes, "counts": counts, "tensors": tensors})


def labels_of(path: str | os.PathLike) -> list[str]:
    """Read class names in order from the lines of a text, a JSON list, or a JSON object from name to position."""
    file = place(path)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
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


def report(assignments: list[Assignment]) -> str:
    """Format one row per tensor: name, shape, target and outcome."""
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


if __name__ == "__main__":
    run(main)
