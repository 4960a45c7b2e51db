"""Shared parts of the experiments: reading arguments, and the papers' recipe as a start."""

import re

import ml_collections
from ml_collections import FieldReference
from ml_collections.config_dict import placeholder

from motion_jax.models import published_fields


def split_smoke(arguments: str) -> tuple[list[str], bool]:
    """Split the arguments of a config at commas, and return whether ``smoke`` is one of them."""
    given = arguments.split(",") if arguments else []
    return [part for part in given if part != "smoke"], "smoke" in given


def parse(arguments: str, default: str) -> tuple[str, int, bool]:
    """Split ``model,frames[,smoke]``. Parts that are left out come from ``default``.

    Raises:
        ValueError: for arguments of another form.
    """
    given, smoke = split_smoke(arguments)
    model, frames = (*given, *default.split(",")[len(given) :]) if len(given) <= 2 else ("", "")
    if not model or not frames.isdecimal():
        raise ValueError(f"config arguments are model,frames[,smoke], such as {default}; got {arguments!r}")
    return model, int(frames), smoke


def sites(model: str) -> tuple[str, ...] | FieldReference:
    """Return the papers' site of the motion block by name for ResNets, else None for the backbone's default."""
    return ("res3",) if re.search(r"_r\d+$", model) else placeholder(tuple)


def base(model: str, frames: int) -> ml_collections.ConfigDict:
    """Return SELFY's recipe on Something-Something (supplement A), without the data set."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.model = {
        "name": model,
        "width": 64,
        "dropout": 0.5,
        "dtype": "float32",
        "sites": sites(model),
        "batch_norm": "per_device",
        "remat": False,
        "causal": False,
        "block": published_fields(model, frames=frames),
    }
    config.data = {
        "name": "",
        "root": placeholder(str),
        "version": placeholder(str),
        "dir": placeholder(str),
        "frames": frames,
        "size": 224,
        "resize": (240, 320),
        "quality": 95,
        "sampling": "segment",
        "crop": "multi_scale",
        "color_jitter": placeholder(tuple),
        "rand_augment": placeholder(tuple),
        "flip": "skip",
        "clips": None,
        "threads": 8,
        "processes": 0,
        "max_bad_fraction": 0.1,
        "drift": 0.0,
        "max_pixels": 2**25,
        "fingerprint": placeholder(str),
    }
    config.train = {
        "batch_size": 64,
        "steps": placeholder(int),
        "epochs": 50.0,
        "learning_rate": 0.01,
        "base_batch_size": placeholder(int),
        "schedule": "step",
        "milestones": (30.0, 40.0),
        "decay_factor": 0.1,
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "clip_norm": 20.0,
        "groups": "official",
        "classifier_lr": (1.0, 2.0),
        "mixup": 0.0,
        "cutmix": 0.0,
        "label_smoothing": 0.0,
        "init_from": placeholder(str),
        "log_every": 20,
        "eval_every_epochs": 1.0,
        "on_nan": "stop",
        "pictures_every": 5.0,
    }
    config.eval = {"batch_size": 64, "clips": 1, "crops": 1, "full_resolution": False, "average": "softmax"}
    config.parallel = {"backend": "pmap", "devices": placeholder(int)}
    config.checkpoint = {
        "every_steps": placeholder(int),
        "every_epochs": 1.0,
        "keep": 2,
        "asynchronous": True,
        "retry_minutes": 1.0,
    }
    return config


def use_videos(
    config: ml_collections.ConfigDict, name: str, *, resize: tuple[int, int] | int, version: str | None = None
) -> None:
    """Use a data set, with frames stored at ``resize``: (height, width), or the short side."""
    with config.ignore_type():  # a short side in place of a pair
        config.data.update(name=name, resize=resize, version=version)


def use_cosine(config: ml_collections.ConfigDict, *, epochs: float) -> None:
    """Use the schedule of SELFY's other data sets: ten epochs of warm-up, then half a cosine."""
    config.train.update(schedule="cosine", epochs=epochs, milestones=(), warmup_epochs=10.0)


def use_fine_tuning(config: ml_collections.ConfigDict) -> None:
    """Fine-tune from Kinetics as TSM's code does on small data sets: lower rate, fewer epochs, more dropout."""
    config.model.dropout = 0.8
    config.train.update(learning_rate=0.001, epochs=25.0, milestones=(10.0, 20.0))


def finish(config: ml_collections.ConfigDict, smoke: bool) -> ml_collections.ConfigDict:
    """Lock an experiment; before that, turn it into a smoke run if asked: a minute on two cores."""
    if smoke:
        use_smoke(config)
    return config.lock()


def use_smoke(config: ml_collections.ConfigDict) -> None:
    """Use a narrow network on a few generated clips."""
    config.model.width = 8
    config.data.update(name="moving_shapes", version=None, quality=95)
    # Generated videos are as long as a clip; dense sampling would take one frame of them.
    config.data.update(size=32, frames=min(config.data.frames, 8), crop="none", sampling="segment")
    config.data.clips = (48, 24)
    config.data.resize = None
    config.data.root = None
    config.data.threads = 2
    config.train.update(batch_size=8, steps=12, log_every=4, eval_every_epochs=0.0, pictures_every=0.0)
    # The run has two epochs.
    config.train.warmup_epochs = min(config.train.warmup_epochs, 0.5)
    config.eval.batch_size = 8
    config.checkpoint.every_steps = 6
