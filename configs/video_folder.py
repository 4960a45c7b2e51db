"""Your own videos: ``root/[train|val]/class/video``, see data/README.md for the other layouts.

Arguments: ``model,frames[,smoke]``, by default ``msnet_tsm_r18,8``. ``--config.data.root=FOLDER`` is needed.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return the papers' recipe at half width and half size, for a small collection without pretraining.

    With weights of ImageNet use configs/fine_tune.py.
    """
    model, frames, smoke = parse(arguments, "msnet_tsm_r18,8")
    config = base(model, frames)
    config.model.width = 32
    config.data.update(name="video_folder", size=112, threads=2)
    config.data.resize = (120, 160)
    config.train.update(batch_size=16, epochs=30.0, milestones=(15.0, 25.0), log_every=5, eval_every_epochs=5.0)
    config.eval.batch_size = 16
    return finish(config, smoke)
