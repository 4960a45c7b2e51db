"""Kinetics-400: 400 classes, most of them told by appearance; dense clips.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,16``. ``--config.data.root=FOLDER`` is needed.

Evaluation in training takes one clip and one crop. The papers' protocol of 30 views is asked of eval.py:
``--clips=10 --crops=3 --full_resolution``.
"""

import ml_collections

from motion_jax.configs.common import base, parse, use_cosine, use_smoke, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """MotionSqueeze's own recipe for ``msnet_*`` with its 8 frames, SELFY's for everything else."""
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,16")
    recipe = motionsqueeze_recipe if model.startswith("msnet") and frames == 8 else selfy_recipe
    config = recipe(model, frames)
    if smoke:
        use_smoke(config)
    return config.lock()


def selfy_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """That of SELFY's supplement, B; what it leaves open follows its part A and the official code.

    Not printed: the batch, here A's 64 with A's learning rate; the weight decay, here that of MotionSqueeze's script
    rather than A's 5e-4. The classifier's rates are those of SELFY's code.
    """
    config = _dense_clips(model, frames)
    use_cosine(config, epochs=65.0)
    config.train.update(weight_decay=1e-4, classifier_lr=(5.0, 10.0))
    return config


def motionsqueeze_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """That of MotionSqueeze's official code, whose classifier learns as fast as the rest."""
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
