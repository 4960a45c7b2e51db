"""Prepare a data set: read its annotations, store its frames for random access, and report what came of it.

Examples:
    python -m motion_jax.tools.prepare something_v2 --root=DOWNLOADS --dir=PREPARED
    python -m motion_jax.tools.prepare configs/ucf101.py --root=DOWNLOADS --version=split2 --workdir=runs/ucf
    python -m motion_jax.tools.prepare something_v1 --root=DOWNLOADS --list-directions
    python -m motion_jax.tools.prepare kinetics400 --root=/shared/k400 --dir=/shared/prepared --beam_runner=SparkRunner

NAME stands for configs/NAME.py. train.py with the same config finds what was prepared for it, by the same
--config.data.dir or in the same workdir; what is absent it prepares by itself. What was begun and killed goes on where
it stopped. data/README.md says where each data set comes from and how its folder looks.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from motion_jax import configs
from motion_jax.cli import Parser, print_json, run, table
from motion_jax.data.clips.labels import POLICIES, directional, flipped_labels
from motion_jax.data.config import NAMES, DataConfig
from motion_jax.data.sources.preparation import class_names, prepare, report
from motion_jax.experiment import Experiment
from motion_jax.tools.complexity import read_config

# So many names of files stand for a long list of them; --json gives all.
NAMED = 10


def main() -> None:
    """A data set -> records on disk and a report; or its classes that have a direction."""
    parser = Parser(__doc__)
    parser.add_argument(
        "config", metavar="NAME|CONFIG", help=f"a config FILE.py[:ARGUMENTS], or one of {', '.join(NAMES)}"
    )
    # What is not given stays as the config has it.
    given = {"default": argparse.SUPPRESS}
    parser.add_argument("--root", metavar="DIR", help="folder of the videos and annotations", **given)
    parser.add_argument(
        "--dir", metavar="DIR", help="folder the records go to, as train.py's --config.data.dir", **given
    )
    parser.add_argument("--version", help="split1 to split3, v1, v2, gym99 or gym288, where there are several", **given)
    parser.add_argument("--resize", type=_resize, help="of stored frames: 240x320, a short side, or none", **given)
    parser.add_argument("--quality", type=int, help="of stored JPEGs, 1 to 100", **given)
    parser.add_argument("--workdir", metavar="DIR", help="instead of --dir: of the run that will use the records")
    parser.add_argument("--beam_runner", metavar="RUNNER", help="make the records on this Apache Beam runner")
    parser.add_argument(
        "--beam_option",
        metavar="OPTION",
        action="append",
        default=[],
        help="such as --direct_num_workers=4; repeatable",
    )
    parser.add_argument(
        "--list-directions", action="store_true", help="show what a flip does to each class, and prepare nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    section = read_section(
        arguments.config,
        {
            name: getattr(arguments, name)
            for name in ("root", "dir", "version", "resize", "quality")
            if name in arguments
        },
    )
    if arguments.list_directions:
        result = list_directions(section)
    else:
        if not section.dir and not arguments.workdir:
            parser.error("give --dir, or the --workdir of the run that will use the records")
        builder = prepare(
            section,
            default_dir=str(pathlib.Path(arguments.workdir or "") / "data"),
            beam_runner=arguments.beam_runner,
            beam_options=arguments.beam_option,
        )
        result = report(builder)
        print(report_text(result))
    if arguments.json:
        print_json(result)


def read_section(name_or_config: str, changes: dict[str, Any]) -> DataConfig:
    """The section `data` of a config, with changes.

    Raises:
        ValueError: if there is no such config, or a value does not fit.
    """
    path, _, config_arguments = name_or_config.partition(":")
    if path in NAMES:
        path = str(pathlib.Path(configs.__file__).parent / f"{path}.py")
    elif not path.endswith(".py"):
        raise ValueError(
            f"{path!r} is neither a config (FILE.py[:ARGUMENTS]) nor a data set; the data sets are {', '.join(NAMES)}"
        )
    config = read_config(path, config_arguments).to_dict()
    config["data"].update(changes)
    return Experiment.from_config(config).data


def list_directions(section: DataConfig) -> dict[str, Any]:
    """Print what each policy does to the classes that have a direction; the same as a dict."""
    names = class_names(section)
    mirrored = {policy: flipped_labels(names, policy=policy) for policy in POLICIES}
    rows = [
        {
            "label": label,
            "class": name,
            **{policy: names[to[label]] if to[label] >= 0 else None for policy, to in mirrored.items()},
        }
        for label, name in enumerate(names)
        if directional(name)
    ]
    others = len(names) - len(rows)
    if rows:
        cells = [
            (row["label"], row["class"], *(_shown(row[policy], row["class"]) for policy in POLICIES)) for row in rows
        ]
        print(table(("label", "class", *POLICIES), cells))
        print()
    print(
        f"{len(rows)} of {len(names)} classes speak of left or right. The other {others} may be mirrored under "
        "skip, swap and always, keep their label, and are never mirrored under none."
    )
    return {"name": section.name, "classes": len(names), "directions": rows, "others": others}


def report_text(result: dict[str, Any]) -> str:
    """A report of :func:`motion_jax.data.sources.preparation.report` for people."""
    named = " ".join(filter(None, (result["name"], result["version"])))
    order = f", {result['class_order']}" if result["class_order"] else ""
    rows = [(split, *values.values()) for split, values in result["splits"].items()]
    lines = [
        f"{named}: {result['classes']} classes{order} -> {result['folder']}",
        "",
        table(("split", "videos", "frames", "bytes"), rows),
    ]
    for cause, paths in result["unreadable"].items():
        lines += ["", f"{len(paths)} left out: {cause}", *_some(paths)]
    for split, names in result["missing"].items():
        lines += ["", f"{len(names)} of split {split} are annotated and absent", *_some(names)]
    if remarks := result["remarks"]:
        lines += ["", f"{len(remarks)} kept, and odd", *_some([f"{path}: {said}" for path, said in remarks.items()])]
    return "\n".join(lines)


def _some(items: Sequence[str]) -> list[str]:
    more = [f"    and {len(items) - NAMED} more"] if len(items) > NAMED else []
    return [f"    {item}" for item in items[:NAMED]] + more


def _shown(mirrored: str | None, name: str) -> str:
    if mirrored is None:
        return "not mirrored"
    return "keeps its label" if mirrored == name else f"-> {mirrored}"


def _resize(text: str) -> tuple[int, int] | int | None:
    if text == "none":
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"expected 240x320, a short side such as 256, or none; got {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


if __name__ == "__main__":
    run(main)
