"""List files of the official repositories: ``root/train.txt`` and ``root/val.txt``, lines of ``path frames label``.

Arguments: ``model,frames[,smoke]``, by default ``msnet_tsm_r18,8``. ``--config.data.root=FOLDER`` is needed; paths are
below it, and ``root/labels.txt``, where there is one, names the classes; with it ``--config.data.flip=skip`` is safe.
"""

import ml_collections

from motion_jax.configs.common import base, finish, parse, use_videos


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Return SELFY's recipe on Something-Something, the data set of the official lists, without flips.

    Lists hold numbers, and only class names tell which classes must not be mirrored.
    """
    model, frames, smoke = parse(arguments, "msnet_tsm_r18,8")
    config = base(model, frames)
    use_videos(config, "list_files", resize=(240, 320))
    config.data.flip = "none"
    return finish(config, smoke)
