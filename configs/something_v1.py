"""Something-Something V1: 174 classes that differ in motion, the papers' main data set.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,8``. ``--config.data.root=FOLDER`` is needed.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return MotionSqueeze's recipe for ``msnet_*``, SELFY's recipe for all other networks."""
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,8")
    recipe = motionsqueeze_recipe if model.startswith("msnet") else selfy_recipe
    config = recipe(model, frames)
    return finish(config, smoke)


def selfy_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """Return the recipe of SELFY's supplement, part A, and its official code."""
    config = base(model, frames)
    use_videos(config, "something_v1", resize=(240, 320))
    return config


def motionsqueeze_recipe(model: str, frames: int) -> ml_collections.ConfigDict:
    """Return the recipe of MotionSqueeze's official code; its supplement prints none."""
    config = selfy_recipe(model, frames)
    config.train.update(batch_size=48, epochs=40.0, milestones=(20.0, 30.0), clip_norm=200.0)
    return config
