"""UCF-101: 101 classes in three splits. The supplements do not use it.

Arguments: ``model,frames[,smoke]``, by default ``tsm_r50,8``. ``--config.data.root=FOLDER`` is needed;
``--config.data.version=split2`` takes another split, and ``--config.train.init_from=RUN`` the run to fine-tune.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_fine_tuning, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return the recipe that fine-tunes a network trained on Kinetics, on the first split."""
    model, frames, smoke = parse(arguments, "tsm_r50,8")
    config = base(model, frames)
    use_videos(config, "ucf101", resize=256, version="split1")
    use_fine_tuning(config)
    return finish(config, smoke)
