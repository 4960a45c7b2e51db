"""Something-Something V2: the classes of V1 on twice as many videos.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,8``. ``--config.data.root=FOLDER`` is needed.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return the recipe of SELFY's supplement, part A, for every network."""
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,8")
    config = base(model, frames)
    use_videos(config, "something_v2", resize=(240, 320))
    return finish(config, smoke)
