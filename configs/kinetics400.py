"""Kinetics-400: 400 classes, most of them recognisable by appearance; dense clips.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,16``. ``--config.data.root=FOLDER`` is needed.

Evaluation during training uses one clip and one crop. For the papers' protocol of 30 views, run eval.py with
``--clips=10 --crops=3 --full_resolution``.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_cosine, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return MotionSqueeze's recipe for ``msnet_*`` with its 8 frames, SELFY's recipe otherwise."""
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,16")
    recipe = motionsqueeze_recipe if model.startswith("msnet") and frames == 8 else selfy_recipe
    config = recipe(model, frames)
    return finish(config, smoke)


def selfy_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """Return SELFY's recipe (supplement B); where it says nothing, this follows part A and the official code.

    It does not print the batch size, here 64 as in A, with A's learning rate, nor the weight decay, here as in
    MotionSqueeze's script instead of A's 5e-4. The classifier's learning rates come from SELFY's code.
    """
    config = _dense_clips(model, frames)
    use_cosine(config, epochs=65.0)
    config.train.update(weight_decay=1e-4, classifier_lr=(5.0, 10.0))
    return config


def motionsqueeze_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """Return the recipe of MotionSqueeze's official code, which has one learning rate for all layers."""
    config = _dense_clips(model, frames)
    config.train.update(
        batch_size=96, learning_rate=0.02, epochs=75.0, milestones=(30.0, 60.0), weight_decay=1e-4, nesterov=False
    )
    return config


def _dense_clips(model: str, frames: int) -> ml_collections.ConfigDict:
    config = base(model, frames)
    use_videos(config, "kinetics400", resize=256)
    config.data.sampling = "dense"
    return config
