"""Write configs/README.md: the rows of the papers' supplements and the named models, with configs and cost.

Examples:
    python -m motion_jax.tools.rows --output=configs/README.md
    python -m motion_jax.tools.rows --json

GFLOPs are in the papers' convention; they and the parameters are counted from shapes. Without --output the page is
printed.
"""

import functools
import pathlib
import types
from collections.abc import Sequence
from typing import Any

import ml_collections

from motion_jax.cli import Parser, print_json, run
from motion_jax.configs import (
    diving48,
    finegym,
    hmdb51,
    kinetics400,
    list_files,
    motionsqueeze_supplement,
    moving_shapes,
    selfy_supplement,
    something_v1,
    something_v2,
    ucf101,
    video_folder,
)
from motion_jax.configs.rows import Row
from motion_jax.models import ModelConfig, list_models
from motion_jax.profiling.operations import count
from motion_jax.profiling.published import PUBLISHED, Comparison
from motion_jax.training.progress import bar

# Experiments, with the arguments of those that choose another recipe than their default ones.
EXPERIMENTS = (
    (something_v1, ""),
    (something_v1, "msnet_tsm_r50,8"),
    (something_v2, ""),
    (kinetics400, ""),
    (kinetics400, "msnet_tsm_r50,8"),
    (diving48, ""),
    (finegym, ""),
    (ucf101, ""),
    (hmdb51, ""),
    (list_files, ""),
    (video_folder, ""),
    (moving_shapes, ""),
)
SOMETHING_SOMETHING = 174
SUPPLEMENTS = {"MotionSqueeze": motionsqueeze_supplement, "SELFY": selfy_supplement}
# Titles of what a table may print.
PRINTED = {"views": "views", "memory": "GB", "runtime": "ms", "top1": "top-1", "top5": "top-5", "gflops": "GFLOPs"}

INTRODUCTION = """\
# configs/

Written by `python -m motion_jax.tools.rows --output=configs/README.md`; a test fails when it is out of date.

A config is one file and, after a colon, its arguments: `model,frames` for the experiments, a row's name for the
supplements. `,smoke` at the end makes any of them a run of a minute on generated clips.

```bash
python train.py --config=configs/something_v1.py:msnet_tsm_r50,8 --workdir=runs/msnet \\
    --config.data.root=SOMETHING --config.data.dir=PREPARED
python train.py --config=configs/selfy_supplement.py:table3a_17x17 --workdir=runs/17x17 \\
    --config.data.root=SOMETHING --config.data.dir=PREPARED
python train.py --config=configs/selfy_supplement.py:table3a_17x17,smoke --workdir=runs/smoke
```

`data.root` is the folder of the data set, `data.dir` where its records are kept for all runs;
[data/README.md](../data/README.md) says where each comes from and how it lies there. The papers start from ImageNet
weights: `--config.train.init_from=FILE` takes torchvision's file of the backbone, and the motion block and the
classifier begin anew. Every other value of a config is a flag too.

Evaluation in training takes one clip and its centre. The papers' protocols are asked of `eval.py`, which writes down
what it did: two clips on Something-Something; ten clips of three crops that span the short side on Kinetics, their
softmax averaged. All views of a video are computed together, so that the batch of the latter is small. The papers'
GFLOPs are those of one view of 224x224.

```bash
python eval.py --workdir=runs/msnet --clips=2
python eval.py --workdir=runs/kinetics --clips=10 --crops=3 --full_resolution --batch_size=8
```
"""

EXPERIMENTS_NOTE = """\
The recipe of each file, with its default arguments, or with those that choose another recipe. Rates fall tenfold after
the epochs named, or along a cosine after so many epochs of warm-up. What a paper leaves open is said in the file.
"""

SUPPLEMENT_NOTES = {
    "MotionSqueeze": """\
All on Something-Something V1 with 8 frames, by the recipe of MotionSqueeze's code. Published numbers on the left, ours
in the last columns; accuracies are the paper's. Its baselines are not those of the other paper: compare within a table.
""",
    "SELFY": """\
Table 2 on Kinetics-400, Tables 3a to 3g on Something-Something V1 with 8 frames, by SELFY's recipes. The accuracies of
its baselines, TSM's among them, are not those of MotionSqueeze's supplement: compare within a table. Rows without a
config are networks of other authors, quoted as numbers only.
""",
}

MODELS_NOTE = """\
Each in `something_v1.py` with 8 frames of 224x224 and 174 classes; the other experiments take the same names. The
backbones of MotionSqueeze's supplement, section 3, are `msnet_tsn_*` (ResNet), `msnet_tsm_*` (TSM ResNet), `msnet_i3d`
and `msnet_tsm_mobilenetv2`.
"""


def main() -> None:
    """Count, then write or print the page."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="FILE", help="where to write the page; default: print it"
    )
    arguments = parser.parse_args()
    rows, named = count_all()
    text = page(rows, named)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
        print(f"{len(rows)} rows and {len(named)} models -> {arguments.output}")
    else:
        print(text)
    if arguments.json:
        print_json({"rows": rows, "models": named})


def count_all() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the entries of all rows and of all named models."""
    rows = [(paper, name) for paper, supplement in SUPPLEMENTS.items() for name in supplement.ROWS]
    described = [describe_row(paper, name) for paper, name in bar(rows, desc="counting rows")]
    return described, [describe_model(name) for name in bar(list_models(), desc="counting models")]


def describe_row(paper: str, name: str) -> dict[str, Any]:
    """Return the entry of one row of a supplement: table, config, printed numbers, and our counts for one clip."""
    supplement = SUPPLEMENTS[paper]
    row = supplement.ROWS[name]
    cost = cost_of(supplement.get_config(name), row.classes)
    return {
        "paper": paper,
        "table": row.table,
        "row": row.label,
        "config": path_of(supplement, name),
        "printed": {key: value for key, value in vars(row.printed).items() if value},
        **cost,
        "note": "; ".join(filter(None, (row.note, _difference(paper, row, cost["gflops"])))),
    }


def describe_model(name: str) -> dict[str, Any]:
    """Return the entry of a named model in ``something_v1``, with its motion block and site."""
    arguments = f"{name},8"
    config = something_v1.get_config(arguments)
    blocks = ModelConfig(**config.model.to_dict()).build(SOMETHING_SOMETHING).backbone.blocks
    site, block = next(iter(blocks.items()), ("", None))
    return {
        "name": name,
        "config": path_of(something_v1, arguments),
        "block": type(block).__name__ if block else "",
        "site": site,
        **cost_of(config, SOMETHING_SOMETHING),
    }


def cost_of(config: ml_collections.ConfigDict, classes: int) -> dict[str, Any]:
    """Count GFLOPs and parameters of a config's network for one of its clips."""
    model = config.model.to_dict()
    block = tuple(sorted(model.pop("block").items()))
    shape = (config.data.frames, config.data.size, config.data.size, 3)
    gflops, params = _count(tuple(model.items()), block, shape, classes)
    return {"gflops": gflops, "params": params}


@functools.cache  # A quarter of a second each, and many rows share a network.
def _count(
    model: tuple[tuple[str, Any], ...], block: tuple[tuple[str, Any], ...], shape: tuple[int, ...], classes: int
) -> tuple[float, int]:
    complexity = count(ModelConfig(**dict(model), block=dict(block)).build(classes), shape)
    return complexity.gflops, sum(complexity.parameters.values())


def _difference(paper: str, row: Row, gflops: float) -> str:
    """Return why our count does not round to the printed one; empty if it does, or if none is printed."""
    if not row.printed.gflops:
        return ""
    published = next(each for each in PUBLISHED if (each.source, each.row) == (f"{paper}, {row.table}", row.label))
    comparison = Comparison(published, gflops)
    return "" if comparison.met else f"GFLOPs: {published.note}"


def path_of(module: types.ModuleType, arguments: str) -> str:
    """Return the value of ``--config`` for a config module."""
    return f"configs/{module.__name__.removeprefix('motion_jax.configs.')}.py" + (f":{arguments}" if arguments else "")


def page(rows: Sequence[dict[str, Any]], named: Sequence[dict[str, Any]]) -> str:
    """Return the text of configs/README.md for what ``count_all`` returns."""
    parts = [INTRODUCTION, "## Experiments\n", EXPERIMENTS_NOTE, experiments_table()]
    for paper in SUPPLEMENTS:
        parts += [f"## {paper}'s supplement\n", SUPPLEMENT_NOTES[paper]]
        of_paper = [row for row in rows if row["paper"] == paper]
        for table in dict.fromkeys(row["table"] for row in of_paper):
            quoted = [each for each in selfy_supplement.QUOTED if (paper, table) == ("SELFY", each.table)]
            parts += [
                f"### {table}\n",
                supplement_table(
                    [
                        *(row for row in of_paper if row["table"] == table),
                        *({"row": each.label, "printed": vars(each.printed)} for each in quoted),
                    ]
                ),
            ]
    parts += ["## Named models\n", MODELS_NOTE, models_table(named)]
    return "\n".join(parts)


def experiments_table() -> str:
    """Format one row per recipe."""
    rows = []
    for module, arguments in EXPERIMENTS:
        config = module.get_config(arguments)
        data, train = config.data, config.train
        length = f"{train.epochs:g} epochs" if train.steps is None else f"{train.steps} steps"
        cosine = f"cosine, {train.warmup_epochs:g}"
        fall = cosine if train.schedule == "cosine" else ", ".join(f"{epoch:g}" for epoch in train.milestones)
        stored = data.resize or data.size
        rows.append(
            (
                f"`{path_of(module, arguments)}`",
                f"`{config.model.name},{data.frames}`",
                config.model.width,
                data.size,
                data.version or "",
                f"{stored[0]}x{stored[1]}" if isinstance(stored, tuple) else stored,
                data.sampling,
                train.batch_size,
                f"{train.learning_rate:g}",
                fall,
                length,
                f"{train.weight_decay:g}",
                f"{train.clip_norm:g}",
                f"{config.model.dropout:g}",
            )
        )
    header = (
        "config",
        "network",
        "width",
        "size",
        "version",
        "stored",
        "sampling",
        "batch",
        "rate",
        "falls",
        "length",
        "decay",
        "clip",
    )
    return markdown((*header, "dropout"), rows)


def supplement_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows of one table of a supplement: its printed columns, then our counts."""
    keys = [key for key in PRINTED if any(row["printed"].get(key) for row in rows)]
    cells = [
        (
            row["row"],
            f"`{row['config']}`" if "config" in row else "",
            *(row["printed"].get(key, "") for key in keys),
            f"{row['gflops']:.3f}" if "gflops" in row else "",
            f"{row['params']:,}" if "params" in row else "",
            row.get("note", ""),
        )
        for row in rows
    ]
    return markdown(("row", "config", *(PRINTED[key] for key in keys), "our GFLOPs", "our parameters", "note"), cells)


def models_table(named: Sequence[dict[str, Any]]) -> str:
    """Format one row per named model."""
    cells = [
        (
            f"`{model['name']}`",
            f"`{model['config']}`",
            model["block"],
            model["site"],
            f"{model['gflops']:.3f}",
            f"{model['params']:,}",
        )
        for model in named
    ]
    return markdown(("model", "config", "motion block", "after", "our GFLOPs", "our parameters"), cells)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table without the columns that are empty in every row.

    >>> print(markdown(("model", "note", "top-1"), [("tsn", "", 8.5)]), end="")
    | model | top-1 |
    | --- | --- |
    | tsn | 8.5 |
    """
    kept = [index for index in range(len(header)) if any(str(row[index]) for row in rows)]
    lines = [[str(row[index]) for index in kept] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(kept))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    run(main)
