"""The named models: which backbone, whether it shifts, which motion block."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from motion_jax.backbones import ResNet
from motion_jax.backbones.resnet import SITES
from motion_jax.blocks import MotionSqueeze, Selfy
from motion_jax.layers import BatchNorm
from motion_jax.models.classifier import VideoClassifier

SHIFT_FOLD_DIV = 8


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One row of the table: a backbone with its size bound, and what is put into it."""

    backbone: Callable[..., ResNet]
    shift: bool
    block: type[nn.Module] | None = None
    zero_init: bool = False


RESNETS = {
    "r18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "r34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False),
    "r50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
    "r101": functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), bottleneck=True),
}
SHIFTS = {"tsn": False, "tsm": True}

MODELS: dict[str, _Entry] = {
    **{f"{s}_{d}": _Entry(r, shift) for s, shift in SHIFTS.items() for d, r in RESNETS.items()},
    **{f"msnet_{s}_{d}": _Entry(r, shift, MotionSqueeze) for s, shift in SHIFTS.items() for d, r in RESNETS.items()},
    **{f"selfynet_{s}_{d}": _Entry(r, shift, Selfy, True) for s, shift in SHIFTS.items() for d, r in RESNETS.items()},
}

# SELFY compares at 14x14 for a 224-pixel input wherever it stands (supplement, Table 3b).
SELFY_STRIDES = {"pool1": 4, "res2": 4, "res3": 2, "res4": 1, "res5": 1}


def list_models() -> list[str]:
    """The names ``build_model`` knows, in the order of the table."""
    return list(MODELS)


def block_fields(block: type[nn.Module]) -> list[str]:
    """Names of the options a motion block takes: its fields, less those every module has."""
    return [f.name for f in dataclasses.fields(block) if f.name not in {"parent", "name", "norm", "dtype"}]


def build_model(
    name: str,
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    dropout: float = 0.5,
    width: int = 64,
    sites: Sequence[str] = ("res3",),
    norm: Callable[..., nn.Module] = BatchNorm,
    **fields: Any,
) -> VideoClassifier:
    """A named model, without parameters.

    Args:
        name: one of ``list_models()``.
        num_classes: number of logits.
        dtype: compute dtype; parameters, statistics and logits are float32 at least.
        dropout: rate before the classifier in training.
        width: channels of the backbone's stem, 64 in the papers; the rest scales with it.
        sites: the stages after which the motion block stands; only used by models that have one.
        norm: the normalisation of every layer, such as ``functools.partial(BatchNorm, axis_name="data")``.
        **fields: fields of the motion block, such as ``radius=7`` or ``window=(9, 9, 9)``.

    Raises:
        ValueError: for an unknown name, a site the backbone lacks, or a field the motion block lacks.

    >>> build_model("selfynet_tsm_r50", num_classes=174, window=(9, 9, 9)).num_classes
    174
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(MODELS)}")
    entry = MODELS[name]
    dtype = jnp.dtype(dtype)
    allowed = block_fields(entry.block) if entry.block else []
    if unknown := sorted(set(fields) - set(allowed)):
        known = f"its block's fields are {', '.join(allowed)}" if allowed else "it has no motion block"
        raise ValueError(f"{name} has no field {', '.join(unknown)}; {known}")
    blocks = {}
    if entry.block:
        if not sites or isinstance(sites, str):
            raise ValueError(f"sites must name the stages of the motion block, such as ('res3',); got {sites!r}")
        # Lists (from a JSON config, say) become tuples: a module's fields are hashable.
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        if unknown := sorted(set(sites) - set(SITES)):
            raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(SITES)}")
        for site in sites:
            own = {"stride": SELFY_STRIDES.get(site, 1)} if entry.block is Selfy else {}
            blocks[site] = entry.block(**{**own, **fields}, norm=norm, dtype=dtype)
    backbone = entry.backbone(
        width=width,
        fold_div=SHIFT_FOLD_DIV if entry.shift else None,
        blocks=blocks,
        zero_init=entry.zero_init,
        norm=norm,
        dtype=dtype,
    )
    return VideoClassifier(backbone=backbone, num_classes=num_classes, dropout=dropout, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Model:
    """The section ``model`` of a config.

    Attributes:
        name: a named model.
        width: channels of the backbone's stem.
        dropout: rate before the classifier.
        dtype: compute dtype, ``float32`` or ``bfloat16``.
        sites: where the motion block stands.
        batch_norm: ``per_device`` statistics (as the originals), ``synchronised`` over the devices, or ``frozen``.
        block: fields of the motion block.

    Raises:
        ValueError: for a value that is not allowed, named with its key.
    """

    name: str
    width: int
    dropout: float
    dtype: str
    sites: tuple[str, ...]
    batch_norm: str
    block: Mapping[str, Any]

    NORMS: ClassVar = {
        "per_device": BatchNorm,
        "synchronised": functools.partial(BatchNorm, axis_name="data"),
        "frozen": functools.partial(BatchNorm, frozen=True),
    }

    def __post_init__(self) -> None:
        if self.batch_norm not in self.NORMS:
            raise ValueError(f"model.batch_norm must be one of {', '.join(self.NORMS)}; got {self.batch_norm!r}")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"model.dtype must be float32, bfloat16 or float64; got {self.dtype!r}")
        if self.width < SHIFT_FOLD_DIV:
            raise ValueError(f"model.width must be {SHIFT_FOLD_DIV} or more; got {self.width}")
        self.build(num_classes=1)

    def build(self, num_classes: int) -> VideoClassifier:
        """The model this section describes, for so many classes."""
        return build_model(
            self.name,
            num_classes=num_classes,
            dtype=self.dtype,
            dropout=self.dropout,
            width=self.width,
            sites=tuple(self.sites),
            norm=self.NORMS[self.batch_norm],
            **dict(self.block),
        )
