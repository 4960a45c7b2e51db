"""Prepare a data set: read its annotations, store its frames for random access, and print a report.

Examples:
    python -m motion_jax.tools.prepare something_v2 --root=DOWNLOADS --dir=PREPARED
    python -m motion_jax.tools.prepare configs/ucf101.py --root=DOWNLOADS --version=split2 --workdir=runs/ucf
    python -m motion_jax.tools.prepare something_v1 --root=DOWNLOADS --list-directions
    python -m motion_jax.tools.prepare kinetics400 --root=/shared/k400 --dir=/shared/prepared --beam_runner=SparkRunner

NAME stands for configs/NAME.py. train.py with the same config finds the records in the same --config.data.dir or
workdir, and prepares absent ones itself. A preparation that was killed continues where it stopped. data/README.md lists
the sources of the data sets and their layouts.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from motion_jax.cli import Parser, any_place, print_json, read_config, run, table, this_machine
from motion_jax.data.clips.labels import POLICIES, directional, flipped_labels
from motion_jax.data.config import NAMES, DataConfig
from motion_jax.data.sources.preparation import class_names, prepare, report
from motion_jax.experiment import Experiment
from motion_jax.places import data_folder
from motion_jax.text import printable

# The number of files that the report names; --json names all.
NAMED = 10


def main() -> None:
    """Prepare a data set and print a report, or list its classes that have a direction."""
    parser = Parser(__doc__, configurable=True)
    config = f"a config FILE.py[:ARGUMENTS], or one of {', '.join(NAMES)}"
    parser.add_argument("config", metavar="NAME|CONFIG", help=config)
    parser.add_argument("--root", type=this_machine, metavar="DIR", help="folder of videos and annotations (data.root)")
    parser.add_argument("--dir", type=this_machine, metavar="DIR", help="folder for the records (data.dir)")
    parser.add_argument("--version", help="such as split1, v2 or gym99 (data.version)")
    resize = "size of stored frames: 240x320, a short side, or none (data.resize)"
    parser.add_argument("--resize", type=_resize, help=resize)
    parser.add_argument("--quality", help="quality of stored JPEGs, 1 to 100 (data.quality)")
    run_ = "in place of --dir: the run that will use the records"
    parser.add_argument("--workdir", type=any_place, metavar="DIR", help=run_)
    parser.add_argument("--beam_runner", metavar="RUNNER", help="make the records on this Apache Beam runner")
    option = "such as --direct_num_workers=4; repeatable"
    parser.add_argument("--beam_option", metavar="OPTION", action="append", default=[], help=option)
    directions = "show what a flip does to each class, and prepare nothing"
    parser.add_argument("--list-directions", action="store_true", help=directions)
    arguments = parser.parse_args()
    short = {name: getattr(arguments, name) for name in ("root", "dir", "version", "resize", "quality")}
    short = {f"data.{name}": str(text) for name, text in short.items() if text is not None}
    section = read_section(arguments.config, {**arguments.changes, **short})
    if arguments.list_directions:
        result = list_directions(section)
    else:
        if not section.dir and not arguments.workdir:
            parser.error("give --dir, or the --workdir of the run that will use the records")
        builder = prepare(
            section,
            default_dir=section.dir or data_folder(arguments.workdir),
            beam_runner=arguments.beam_runner,
            beam_options=arguments.beam_option,
        )
        result = report(builder)
        print(report_text(result))
    if arguments.json:
        print_json(result)


def read_section(name_or_config: str, changes: dict[str, str]) -> DataConfig:
    """Read the section ``data`` of a config, with overrides; ValueError if there is none, or a value does not fit."""
    path, colon, config_arguments = name_or_config.partition(":")
    if path not in NAMES and ".py" not in path:
        raise ValueError(
            f"{path!r} is neither a config (FILE.py[:ARGUMENTS]) nor a data set; the data sets are {', '.join(NAMES)}"
        )
    path = f"configs/{path}.py" if path in NAMES else path
    return Experiment.from_config(read_config(f"{path}{colon}{config_arguments}", changes)).data


def list_directions(section: DataConfig) -> dict[str, Any]:
    """Print what each flip policy does to the classes that have a direction, and return it."""
    names = class_names(section)
    mirrored = {policy: flipped_labels(names, policy=policy) for policy in POLICIES}
    rows = []
    for label, name in enumerate(names):
        if directional(name):
            under = {policy: names[to[label]] if to[label] >= 0 else None for policy, to in mirrored.items()}
            rows.append({"label": label, "class": name, **under})
    others = len(names) - len(rows)
    if rows:
        cells = [(row["label"], row["class"], *(_shown(row[each], row["class"]) for each in POLICIES)) for row in rows]
        print(f"{table(('label', 'class', *POLICIES), cells)}\n")
    print(
        f"{len(rows)} of {len(names)} classes name left or right. The other {others} keep their label: they may be "
        "mirrored under skip, swap and always, and are never mirrored under none."
    )
    return {"name": section.name, "classes": len(names), "directions": rows, "others": others}


def report_text(result: dict[str, Any]) -> str:
    """Format a report of :func:`motion_jax.data.sources.preparation.report`."""
    named = " ".join(filter(None, (result["name"], result["version"])))
    order = f", {result['class_order']}" if result["class_order"] else ""
    rows = [(split, *values.values()) for split, values in result["splits"].items()]
    lines = [
        f"{named}: {result['classes']} classes{printable(order)} -> {printable(result['folder'])}",
        "",
        table(("split", "videos", "frames", "bytes"), rows),
    ]
    for cause, paths in result["unreadable"].items():
        lines += ["", f"{len(paths)} left out: {cause}", *_some(paths)]
    for split, names in result["missing"].items():
        lines += ["", f"{len(names)} of split {split} are annotated but absent", *_some(names)]
    if remarks := [f"{path}: {said}" for path, said in result["remarks"].items()]:
        lines += ["", f"{len(remarks)} kept with a remark", *_some(remarks)]
    return "\n".join(lines)


def _some(items: Sequence[str]) -> list[str]:
    more = [f"    and {len(items) - NAMED} more"] if len(items) > NAMED else []
    return [f"    {printable(item)}" for item in items[:NAMED]] + more


def _shown(mirrored: str | None, name: str) -> str:
    if mirrored is None:
        return "not mirrored"
    return "keeps its label" if mirrored == name else f"-> {mirrored}"


def _resize(text: str) -> str:
    """Turn 240x320, 256 or none into the text of an override."""
    if not re.fullmatch(r"none|\d+(x\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected 240x320, a short side such as 256, or none; got {text!r}")
    return "None" if text == "none" else text.replace("x", ",")


if __name__ == "__main__":
    run(main)
