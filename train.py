"""Train a video network.

Examples:
    python train.py --config=configs/moving_shapes.py --workdir=runs/msnet
    python train.py --config=configs/moving_shapes.py:selfynet_tsm_r18,8,smoke --workdir=runs/smoke
    python train.py --config=configs/video_folder.py:msnet_tsm_r18,8 --config.data.root=VIDEOS --workdir=runs/mine

A workdir that holds a checkpoint is resumed from it. Any value of the config can be given as --config.<key>=<value>.
"""

import dataclasses
import functools
import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from motion_jax.cli import print_json, run_with_flags
from motion_jax.experiment import Experiment, initial_variables, open_data

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, arguments after a colon: FILE[:ARGUMENTS].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, logs, prepared data.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes (TPU pod, several hosts).")
_JSON = flags.DEFINE_bool("json", False, "Print the result as one JSON object, last.")


def main() -> None:
    """Config -> data and model -> one call of ``fit``."""
    if _CONFIG.value is None or not _WORKDIR.value:
        raise ValueError("--config=FILE and --workdir=DIR are needed; see --help")
    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    config = _CONFIG.value.to_dict()
    experiment = Experiment.from_config(config)
    # The run keeps absolute paths, so that its checkpoints find the data from any folder.
    config["data"] = dataclasses.asdict(experiment.data)
    workdir = pathlib.Path(_WORKDIR.value)

    from motion_jax.data.pipeline import eval_batches, train_batches
    from motion_jax.training.loop import TrainingData, fit
    from motion_jax.training.parallel import check_batch_size

    # What does not fit is said before data are prepared or anything is compiled.
    check_batch_size(experiment.train.batch_size, experiment.parallel)
    check_batch_size(experiment.eval.batch_size, experiment.parallel, field="eval.batch_size")
    dataset = open_data(experiment.data, workdir)
    dataset.size("val")
    model = experiment.model.build(len(dataset.labels))
    source = experiment.train.init_from
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    data = TrainingData(
        train_batches=lambda step: train_batches(
            dataset, batch_size=experiment.train.batch_size, seed=experiment.seed, start_step=step, **processes
        ),
        eval_batches=functools.partial(
            eval_batches,
            dataset,
            batch_size=experiment.eval.batch_size,
            clips=experiment.eval.clips,
            crops=experiment.eval.crops,
            full_resolution=experiment.eval.full_resolution,
            **processes,
        ),
        train_size=dataset.size("train"),
        labels=dataset.labels,
        clip_shape=(experiment.data.frames, experiment.data.size, experiment.data.size, 3),
    )
    result = fit(
        model,
        data,
        train=experiment.train,
        parallel=experiment.parallel,
        checkpoint=experiment.checkpoint,
        evaluation=experiment.eval,
        seed=experiment.seed,
        workdir=workdir,
        config=config,
        variables=initial_variables(model, source, seed=experiment.seed) if source else None,
    )
    if _JSON.value:
        print_json(result)


if __name__ == "__main__":
    run_with_flags(main, description=__doc__)
