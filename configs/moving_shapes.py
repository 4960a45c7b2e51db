"""Generated clips in which no single frame tells the class: the embedded default.

Arguments: ``model,frames[,smoke]``, by default ``msnet_tsm_r18,8``.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse
from motion_jax.models import narrow_fields


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return a narrow network on 64-pixel clips, which trains in a minute or two on two cores."""
    model, frames, smoke = parse(arguments, "msnet_tsm_r18,8")
    config = base(model, frames)
    config.model.update(width=8, dropout=0.0)
    config.model.block.update(narrow_fields(model))
    if model.startswith("msnet"):
        # Objects move by 4 to 8 pixels per frame: one or two cells of the finest map, half a cell of res3.
        config.model.block.update(radius=3)
        if config.model.sites:
            config.model.sites = ("pool1",)
            config.model.block.update(reduction_kernel=3)
    if model.startswith("selfynet"):
        # On a map of 4x4 cells a larger window adds only cells outside the frame.
        config.model.block.window = (config.model.block.window[0], 5, 5)
    config.data.update(name="moving_shapes", size=64, crop="none", threads=2)
    config.data.clips = (2400, 1200)
    config.data.resize = None
    config.train.update(
        batch_size=16,
        steps=400,
        learning_rate=0.05,
        schedule="cosine",
        milestones=(),
        warmup_epochs=0.2,
        weight_decay=1e-4,
        eval_every_epochs=0.0,
    )
    config.checkpoint.every_steps = 100
    return finish(config, smoke)
