"""FineGym: elements of gymnastics, cut from long videos; measured by the mean accuracy of the classes.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,8``. ``--config.data.root=FOLDER`` is needed;
``--config.data.version=gym288`` takes the longer list of classes.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_cosine, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return SELFY's recipe (supplement A): what it prints for FineGym, the rest as on Something-Something."""
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,8")
    config = base(model, frames)
    use_videos(config, "finegym", resize=(240, 320), version="gym99")
    use_cosine(config, epochs=40.0)
    return finish(config, smoke)
