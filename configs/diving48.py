"""Diving-48: 48 dives told apart by their movements alone.

Arguments: ``model,frames[,smoke]``, by default ``selfynet_tsm_r50,16``. ``--config.data.root=FOLDER`` is needed;
``--config.data.version=v1`` takes the first labels.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_cosine, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return SELFY's recipe (supplement A): what it prints for Diving-48, the rest as on Something-Something.

    The supplement does not print the version of the labels; this is the cleaned second one.
    """
    model, frames, smoke = parse(arguments, "selfynet_tsm_r50,16")
    config = base(model, frames)
    use_videos(config, "diving48", resize=(240, 320), version="v2")
    use_cosine(config, epochs=30.0)
    return finish(config, smoke)
