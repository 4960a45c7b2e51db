"""Evaluate a trained network on a whole split and write eval.json and scores.npz.

Examples:
    python eval.py --workdir=runs/demo/msnet_tsm_r18
    python eval.py --workdir=runs/mine --which=latest
    python eval.py --checkpoint=runs/demo/msnet_tsm_r18/checkpoints/latest/200 --json
    python eval.py --workdir=runs/mine --clips=10 --crops=3 --full_resolution
    python eval.py --workdir=runs/demo/msnet_tsm_r18 --corruption=occlusion:3
    python -m motion_jax.tools.launch --processes=2 -- eval.py --workdir=runs/mine

The checkpoint is evaluated with the config and the labels that it holds. Other splits than val and corrupted clips have
files of their own, such as eval_train.json and eval_occlusion_3.json.

By default this is the checkpoint with the best top-1 on val. If val is also the set you report, its accuracy is
optimistic: evaluate the latest checkpoint with --which=latest.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np

from motion_jax.cli import Parser, change, print_json, program, read_config, run
from motion_jax.data.clips.corruption import Corruption
from motion_jax.data.pipeline import eval_batches
from motion_jax.experiment import Experiment, check_same_model, open_data, workdir_of
from motion_jax.places import place
from motion_jax.training import processes
from motion_jax.training.checkpoints import restore
from motion_jax.training.evaluation import evaluate_model, write_evaluation

PROTOCOL = ("batch_size", "clips", "crops", "average", "full_resolution")


def main() -> None:
    """Restore a checkpoint, evaluate it and write the result."""
    arguments = _parse_arguments()
    processes.join(arguments, program=program())
    corruption = Corruption.parse(arguments.corruption) if arguments.corruption else None
    folder = "checkpoints/latest" if arguments.which == "latest" else ""
    restored = restore(arguments.checkpoint or place(arguments.workdir) / folder)
    workdir = place(arguments.workdir or workdir_of(restored.path))
    config = read_config(arguments.config) if arguments.config else restored.config
    config = change(config, arguments.changes)
    given = {name: getattr(arguments, name) for name in PROTOCOL if getattr(arguments, name) is not None}
    asked = {"split": arguments.split, "corruption": arguments.corruption, "step": restored.step}
    processes.compare_config({**config, "evaluation": {**given, **asked}})
    experiment = Experiment.from_config(config)
    check_same_model(experiment.model, restored.config, checkpoint=restored.path)
    protocol = dataclasses.replace(experiment.eval, **given)
    dataset = open_data(experiment.data, workdir)
    if dataset.labels != restored.labels:
        raise ValueError(
            f"the checkpoint has {len(restored.labels)} labels, the data have {len(dataset.labels)} others: "
            "give the data it was trained on (--config.data.root=...)"
        )
    # Both sections have a value ``clips``; the views per video of the protocol win over the size of moving_shapes.
    described = {**dataclasses.asdict(experiment.data), **dataclasses.asdict(protocol), "split": arguments.split}
    views = {name: described[name] for name in ("split", "batch_size", "clips", "crops", "full_resolution")}
    views |= {"process_index": jax.process_index(), "process_count": jax.process_count()}
    ids: list[bytes] = []
    metrics, scores, labels = evaluate_model(
        experiment.model.build(len(restored.labels)),
        restored.variables,
        _note_ids(eval_batches(dataset, **views, corruption=corruption), ids),
        section=protocol,
        parallel=experiment.parallel,
        total=-(-dataset.size(arguments.split) // protocol.batch_size),
    )
    # The videos of this process become those of all of them.
    ids = processes.gather_text(ids)
    unreadable = sum(map(int, processes.exchange("evaluate", str(dataset.broken))))
    described |= {"corruption": arguments.corruption, "unreadable": unreadable}
    suffixes = (None if arguments.split == "val" else arguments.split, arguments.corruption)
    if jax.process_index() > 0:
        return
    path = write_evaluation(
        workdir,
        metrics=metrics,
        scores=scores,
        labels=labels,
        label_names=restored.labels,
        ids=[name for _, name in sorted(map(_split, ids)) if name],
        protocol={**described, "step": restored.step, "model": experiment.model.name},
        suffix="".join(f"_{suffix}" for suffix in suffixes if suffix).replace(":", "_"),
    )
    shown = {name: round(value, 2) for name, value in metrics.items()}
    print(f"{restored.path}: {', '.join(f'{name} {value}' for name, value in shown.items())} -> {path}")
    if arguments.json:
        print_json({name: metrics[name] for name in ("top1", "top5", "mean_class", "clips")})


def _parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, configurable=True)
    parser.add_argument("--workdir", metavar="DIR", help="folder of a training run; the result is written there")
    parser.add_argument("--checkpoint", metavar="PATH", help="a checkpoint in place of one of the workdir")
    parser.add_argument("--which", choices=("best", "latest"), help="checkpoint of the workdir; default: best")
    parser.add_argument("--config", metavar="FILE[:ARGUMENTS]", help="config in place of that of the checkpoint")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    replaces = "; default: as the config says"
    parser.add_argument("--batch_size", type=int, metavar="N", help=f"videos per batch, over all devices{replaces}")
    parser.add_argument("--clips", type=int, metavar="N", help=f"clips per video{replaces}")
    parser.add_argument("--crops", type=int, metavar="N", help=f"crops per clip, 1 or 3{replaces}")
    parser.add_argument("--average", help=f"average softmax or logits over the views{replaces}")
    whole = f"crop views from the whole stored short side{replaces}"
    parser.add_argument("--full_resolution", action=argparse.BooleanOptionalAction, help=whole)
    frame = "corrupt a frame; default: the 4th of 8 frames"
    parser.add_argument("--corruption", metavar="NAME:LEVEL[:FRAME]", help=frame)
    processes.add_arguments(parser)
    arguments = parser.parse_args()
    if not (arguments.workdir or arguments.checkpoint):
        parser.error("--workdir=DIR or --checkpoint=PATH is needed")
    if arguments.which and arguments.checkpoint:
        parser.error("--which selects a checkpoint of --workdir: give it without --checkpoint")
    return arguments


def _note_ids(batches: Iterable[Mapping[str, np.ndarray]], ids: list[bytes]) -> Iterator[Mapping[str, np.ndarray]]:
    """Pass batches on and note the index in the split and the id of each row; the id is empty for padding."""
    for batch in batches:
        ids += [b"%d %s" % row for row in zip(batch["index"].tolist(), batch["id"].tolist(), strict=True)]
        yield batch


def _split(row: bytes) -> tuple[int, str]:
    index, _, name = row.partition(b" ")
    return int(index), name.decode()


if __name__ == "__main__":
    run(main)
