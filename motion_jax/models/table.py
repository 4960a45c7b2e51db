"""The named models: which backbone, whether it shifts, which motion block."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from motion_jax.backbones import InceptionI3D, MobileNetV2, ResNet
from motion_jax.backbones.protocol import Backbone
from motion_jax.blocks import (
    CorrelationBlock,
    CorrespondenceProposal,
    LocalSelfAttention,
    MotionSqueeze,
    MultiHeadSelfAttention,
    NonLocal,
    Selfy,
)
from motion_jax.blocks.protocol import MotionBlock, declared
from motion_jax.layers import BatchNorm
from motion_jax.models.classifier import VideoClassifier
from motion_jax.text import did_you_mean, shown

SHIFT_FOLD_DIV = 8
PUBLISHED_WIDTH = 64
MOST_WIDTH = 2048


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """One row of the table: a backbone with its size and shift, and the motion block in it.

    Attributes:
        backbone: class of the backbone.
        backbone_fields: fields of the backbone, such as ``DEPTHS["r18"] | TSM``.
        block: class of the motion block, or None.
        block_fields: fields of the motion block, where the papers change its defaults on this backbone.
    """

    backbone: type[Backbone]
    backbone_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    block: type[MotionBlock] | None = None
    block_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


DEPTHS = {
    "r18": {"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    "r34": {"stage_sizes": (3, 4, 6, 3), "bottleneck": False},
    "r50": {"stage_sizes": (3, 4, 6, 3), "bottleneck": True},
    "r101": {"stage_sizes": (3, 4, 23, 3), "bottleneck": True},
}
TSM = {"fold_div": SHIFT_FOLD_DIV}
SHIFTS = {"tsn": {}, "tsm": TSM}
# Blocks that the supplements compare MotionSqueeze and SELFY with.
COMPARED: dict[str, type[MotionBlock]] = {
    "cpnet": CorrespondenceProposal,
    "nonlocal": NonLocal,
    "mhsa": MultiHeadSelfAttention,
    "localattention": LocalSelfAttention,
    "corrblock": CorrelationBlock,
}
# SELFYNet starts every residual branch of its backbone at zero.
ZERO = {"zero_init": True}

MODELS: dict[str, NamedModel] = {
    **{
        f"{prefix}{s}_{d}": NamedModel(ResNet, size | shift | start, block)
        for prefix, start, block in (("", {}, None), ("msnet_", {}, MotionSqueeze), ("selfynet_", ZERO, Selfy))
        for s, shift in SHIFTS.items()
        for d, size in DEPTHS.items()
    },
    **{f"{s}_mobilenetv2": NamedModel(MobileNetV2, shift) for s, shift in SHIFTS.items()},
    # Its 32 channels are few enough to be matched as they are (MotionSqueeze supplement, section 3).
    "msnet_tsm_mobilenetv2": NamedModel(MobileNetV2, TSM, MotionSqueeze, {"reduction": None}),
    "selfynet_tsm_mobilenetv2": NamedModel(MobileNetV2, TSM | ZERO, Selfy),
    "i3d": NamedModel(InceptionI3D),
    "msnet_i3d": NamedModel(InceptionI3D, block=MotionSqueeze),
    "selfynet_i3d": NamedModel(InceptionI3D, block=Selfy),
    **{
        f"{name}_tsm_{depth}": NamedModel(ResNet, DEPTHS[depth] | TSM, block)
        for name, block in COMPARED.items()
        for depth in ("r18", "r50")
    },
}


def list_models() -> list[str]:
    """Return the names that ``build_model`` knows, in the order of the table."""
    return list(MODELS)


def named_model(name: str) -> NamedModel:
    """Return a row of the table.

    Raises:
        ValueError: for an unknown name, with the nearest ones.
    """
    if name not in MODELS:
        meant = did_you_mean(name, MODELS, otherwise="motion_jax.list_models() gives all names")
        raise ValueError(f"there is no model {shown(name)}; {meant}")
    return MODELS[name]


def published_fields(name: str, *, frames: int) -> dict[str, Any]:
    """Return the fields of a model's motion block that its paper prints, for clips of ``frames`` frames."""
    fields = declared(named_model(name).block, "published_fields")
    return dict(fields(frames)) if fields else {}


def narrow_fields(name: str) -> dict[str, Any]:
    """Return the fields of a model's motion block for a backbone of an eighth of the published width."""
    entry = named_model(name)
    return {**declared(entry.block, "narrow_fields", {}), **entry.block_fields}


def block_fields(block: type[MotionBlock] | None) -> list[str]:
    """Return the names of a motion block's options: its fields, without those of every module."""
    fields = dataclasses.fields(block) if block else ()
    return [f.name for f in fields if f.name not in {"parent", "name", "norm", "dtype", "causal"}]


def build_model(
    name: str,
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    dropout: float = 0.5,
    width: int = PUBLISHED_WIDTH,
    sites: Sequence[str] | None = None,
    norm: Callable[..., nn.Module] = BatchNorm,
    remat: bool = False,
    causal: bool = False,
    **fields: Any,
) -> VideoClassifier:
    """Build a named model, without parameters.

    Args:
        name: one of ``list_models()``.
        num_classes: number of logits.
        dtype: compute dtype; parameters, statistics and logits are float32 at least.
        dropout: rate before the classifier in training.
        width: 64 for the backbone as published, less for a narrow one in proportion. In ResNets and I3D it is the
            number of channels of the stem; MobileNet-V2's stem has half as many.
        sites: the stages after which the motion block stands, by default the papers' one: ``res3`` in ResNets,
            ``stage3`` in MobileNet-V2, ``inc_b`` in I3D. Only used by models that have a motion block.
        norm: the normalisation of every layer, such as ``functools.partial(BatchNorm, axis_name="data")``.
        remat: in training, recompute residual, Inception and motion blocks for the gradients instead of keeping their
            activations. This saves memory and changes neither numbers nor parameters.
        causal: let no frame depend on a later one, for streams (see ``motion_jax.streaming``): the shift, the motion
            and the self-similarity look at frames before. The parameters are the same.
        **fields: fields of the motion block, such as ``radius=7`` or ``window=(9, 9, 9)``, and options of the
            backbone: ``shift_every`` of ResNets, ``stem_kernel`` of MobileNet-V2.

    Raises:
        ValueError: for an unknown name, a site the backbone lacks, a field that neither block nor backbone has, or
            ``causal`` where the block or the backbone has no causal form.

    >>> build_model("selfynet_tsm_r50", num_classes=174, window=(9, 9, 9)).num_classes
    174
    """
    entry = named_model(name)
    backbone = entry.backbone
    dtype = jnp.dtype(dtype)
    # Lists (from a JSON config, say) become tuples: a module's fields are hashable.
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    options = {key: fields.pop(key) for key in backbone.options if key in fields}
    allowed = block_fields(entry.block)
    if unknown := sorted(set(fields) - set(allowed)):
        known = f"its block's fields are {', '.join(allowed)}" if allowed else "it has no motion block"
        known += f"; its backbone's are {', '.join(backbone.options)}" if backbone.options else ""
        known = did_you_mean(unknown[0], [*allowed, *backbone.options], otherwise=known)
        raise ValueError(f"{name} has no field {', '.join(field[:60] for field in unknown[:5])}; {known}")
    for part in filter(None, (backbone, entry.block) if causal else ()):
        if not any(field.name == "causal" for field in dataclasses.fields(part)):
            raise ValueError(
                f"{name} cannot be causal: {part.__name__} has no causal form; ResNet and MobileNetV2 have one, alone "
                "and with MotionSqueeze or Selfy"
            )
    past_only = {"causal": True} if causal else {}
    blocks = {}
    if entry.block:
        sites = (backbone.default_site,) if sites is None else sites
        if not sites or isinstance(sites, str):
            example = f"({backbone.default_site!r},)"
            raise ValueError(f"sites must name the stages of the motion block, such as {example}; got {shown(sites)}")
        if unknown := sorted(set(map(str, sites)) - set(backbone.sites)):
            unknown = ", ".join(site[:60] for site in unknown[:5])
            raise ValueError(f"{name} has no site {unknown}; its sites are {', '.join(backbone.sites)}")
        fields_at = declared(entry.block, "fields_at", lambda cell: {})
        for site in sites:
            own = {**fields_at(backbone.sites[site]), **entry.block_fields, **fields}
            blocks[site] = entry.block(**own, **past_only, norm=norm, dtype=dtype)
    network = backbone(
        **{**entry.backbone_fields, **options},
        width=max(1, backbone.published_width * width // PUBLISHED_WIDTH),
        # Hashable, so that a model can be a static argument of jax.jit.
        blocks=FrozenDict(blocks),
        remat=remat,
        **past_only,
        norm=norm,
        dtype=dtype,
    )
    return VideoClassifier(backbone=network, num_classes=num_classes, dropout=dropout, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The section ``model`` of a config.

    Attributes:
        name: a named model.
        width: 64 for the backbone as published, less for a narrow one in proportion.
        dropout: rate before the classifier.
        dtype: compute dtype, ``float32`` or ``bfloat16``.
        sites: stages with the motion block; None for the papers' site on this backbone.
        batch_norm: ``per_device`` statistics (as the originals), ``synchronised`` over the devices, or ``frozen``.
        block: fields of the motion block and options of the backbone, see ``build_model``.
        remat: save memory in training for about a third more operations, see ``build_model``.
        causal: let no frame depend on a later one, see ``build_model``.

    Raises:
        ValueError: for a value that is not allowed, with its key.
    """

    name: str
    width: int
    dropout: float
    dtype: str
    sites: tuple[str, ...] | None
    batch_norm: str
    block: Mapping[str, Any]
    # Checkpoints from before these options lack them.
    remat: bool = False
    causal: bool = False

    SAME_RESULT: ClassVar = ("remat",)
    NORMS: ClassVar = {
        "per_device": BatchNorm,
        "synchronised": functools.partial(BatchNorm, axis_name="data"),
        "frozen": functools.partial(BatchNorm, frozen=True),
    }

    def __post_init__(self) -> None:
        if self.batch_norm not in self.NORMS:
            raise ValueError(f"model.batch_norm must be one of {', '.join(self.NORMS)}; got {shown(self.batch_norm)}")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"model.dtype must be float32, bfloat16 or float64; got {shown(self.dtype)}")
        if not SHIFT_FOLD_DIV <= self.width <= MOST_WIDTH:
            raise ValueError(f"model.width is {shown(self.width)}, expected {SHIFT_FOLD_DIV} to {MOST_WIDTH}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {shown(self.dropout)}, expected a number from 0 to below 1")
        own = inspect.signature(build_model).parameters
        for key in self.block:
            if not isinstance(key, str) or key in own:
                raise ValueError(f"model.block has no field {shown(key)}; it holds fields of the motion block")
        self.build(num_classes=1)

    @property
    def compares_frames(self) -> bool:
        """Whether the model has a motion block."""
        return named_model(self.name).block is not None

    def build(self, num_classes: int) -> VideoClassifier:
        """Build the model that this section describes."""
        return build_model(
            self.name,
            num_classes=num_classes,
            dtype=self.dtype,
            dropout=self.dropout,
            width=self.width,
            sites=self.sites,
            norm=self.NORMS[self.batch_norm],
            remat=self.remat,
            causal=self.causal,
            **dict(self.block),
        )
