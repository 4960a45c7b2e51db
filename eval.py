"""Evaluate a trained network on the whole validation split and write eval.json.

Examples:
    python eval.py --workdir=runs/msnet
    python eval.py --checkpoint=runs/msnet/checkpoints/latest/300 --json
    python eval.py --workdir=runs/mine --clips=10 --crops=3 --full_resolution
    python eval.py --workdir=runs/msnet --corruption=occlusion:3

The best checkpoint of a workdir is taken; config and labels come with it, unless --config says otherwise. The result of
corrupted clips is written beside that of clean ones: eval_occlusion_3.json.
"""

import dataclasses
import pathlib

from absl import flags
from ml_collections import config_flags

from motion_jax.cli import print_json, run_with_flags
from motion_jax.experiment import Experiment, VideoIds, check_same_model, open_data, workdir_of

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config in place of the checkpoint's: FILE[:ARGUMENTS].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a training run; eval.json is written here.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A checkpoint folder, in place of the workdir's best.")
_SPLIT = flags.DEFINE_string("split", "val", "The split to evaluate.")
flags.DEFINE_integer("batch_size", None, "Videos at once over all devices, in place of the config's.")
flags.DEFINE_integer("clips", None, "Clips per video, in place of the config's.")
flags.DEFINE_integer("crops", None, "Crops per clip (1 or 3), in place of the config's.")
flags.DEFINE_string("average", None, "Over the views, of softmax or logits, in place of the config's.")
flags.DEFINE_bool("full_resolution", None, "Views span the stored short side, in place of the config's choice.")
_CORRUPTION = flags.DEFINE_string("corruption", None, "Spoil a frame: NAME:LEVEL[:FRAME], by default the 4th of 8.")
_JSON = flags.DEFINE_bool("json", False, "Print the result as one JSON object, last.")


def main() -> None:
    """Checkpoint -> model and data -> metrics -> eval.json."""
    if not (_WORKDIR.value or _CHECKPOINT.value):
        raise ValueError("--workdir=DIR or --checkpoint=PATH is needed; see --help")

    from motion_jax.data.clips.corruption import Corruption
    from motion_jax.data.pipeline import eval_batches
    from motion_jax.training.checkpoints import restore
    from motion_jax.training.evaluation import evaluate_model, write_evaluation

    corruption = Corruption.parse(_CORRUPTION.value) if _CORRUPTION.value else None
    restored = restore(_CHECKPOINT.value or _WORKDIR.value)
    workdir = pathlib.Path(_WORKDIR.value or workdir_of(restored.path))
    experiment = Experiment.from_config(_CONFIG.value.to_dict() if _CONFIG.value else restored.config)
    check_same_model(experiment.model, restored.config, checkpoint=restored.path)
    given = {name: flags.FLAGS[name].value for name in ("batch_size", "clips", "crops", "average", "full_resolution")}
    protocol = dataclasses.replace(experiment.eval, **{key: value for key, value in given.items() if value is not None})
    dataset = open_data(experiment.data, workdir)
    if dataset.labels != restored.labels:
        raise ValueError(
            f"the checkpoint knows {len(restored.labels)} labels, the data have {len(dataset.labels)} others: "
            "give the data it was trained on (--config=FILE --config.data.root=...)"
        )
    # Of the two values named clips, that of the data is the number of made-up ones; the protocol's is meant.
    described = {**dataclasses.asdict(experiment.data), **dataclasses.asdict(protocol), "split": _SPLIT.value}
    views = {name: described[name] for name in ("split", "batch_size", "clips", "crops", "full_resolution")}
    ids = VideoIds()
    metrics, scores, labels = evaluate_model(
        experiment.model.build(len(restored.labels)),
        restored.variables,
        ids.noted(eval_batches(dataset, **views, corruption=corruption)),
        section=protocol,
        parallel=experiment.parallel,
        total=-(-dataset.size(_SPLIT.value) // protocol.batch_size),
    )
    described |= {"corruption": _CORRUPTION.value, "unreadable": dataset.broken}
    path = write_evaluation(
        workdir,
        metrics=metrics,
        scores=scores,
        labels=labels,
        label_names=restored.labels,
        ids=ids.in_order(),
        protocol={**described, "step": restored.step, "model": experiment.model.name},
        suffix=f"_{_CORRUPTION.value.replace(':', '_')}" if corruption else "",
    )
    shown = {name: round(value, 2) for name, value in metrics.items()}
    print(", ".join(f"{name} {value}" for name, value in shown.items()), f"-> {path}")
    if _JSON.value:
        print_json({name: metrics[name] for name in ("top1", "top5", "mean_class", "clips")})


if __name__ == "__main__":
    run_with_flags(main, description=__doc__)
