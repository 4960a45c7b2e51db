"""The named models: which backbone, whether it shifts, which motion block."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from motion_jax.backbones import InceptionI3D, MobileNetV2, ResNet, inception_i3d, mobilenet_v2, resnet
from motion_jax.blocks import (
    CorrelationBlock,
    CorrespondenceProposal,
    LocalSelfAttention,
    MotionSqueeze,
    MultiHeadSelfAttention,
    NonLocal,
    Selfy,
)
from motion_jax.layers import BatchNorm
from motion_jax.models.classifier import VideoClassifier

SHIFT_FOLD_DIV = 8
PUBLISHED_WIDTH = 64


@dataclasses.dataclass(frozen=True)
class _Family:
    """The backbones of one kind.

    Attributes:
        backbone: their class.
        sites: where a motion block may stand, and how many pixels of the clip one cell is wide there.
        default_site: where the papers put it.
        width: channels of the published stem.
        options: fields of the backbone that ``build_model`` passes on.
    """

    backbone: type[nn.Module]
    sites: Mapping[str, int]
    default_site: str
    width: int
    options: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One row of the table: a backbone with its size and shift, and the motion block that is put into it.

    Attributes:
        family: of the backbone.
        bound: fields of the backbone that make this one.
        block: the motion block's class.
        fields: of the motion block, where the papers leave its defaults on this backbone.
    """

    family: _Family
    bound: Mapping[str, Any]
    block: type[nn.Module] | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


RESNET = _Family(ResNet, resnet.SITES, "res3", resnet.PUBLISHED_WIDTH, options=("shift_every",))
MOBILENET_V2 = _Family(
    MobileNetV2, mobilenet_v2.SITES, "stage3", mobilenet_v2.PUBLISHED_WIDTH, options=("stem_kernel",)
)
I3D = _Family(InceptionI3D, inception_i3d.SITES, "inc_b", inception_i3d.PUBLISHED_WIDTH)

DEPTHS = {
    "r18": {"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    "r34": {"stage_sizes": (3, 4, 6, 3), "bottleneck": False},
    "r50": {"stage_sizes": (3, 4, 6, 3), "bottleneck": True},
    "r101": {"stage_sizes": (3, 4, 23, 3), "bottleneck": True},
}
TSM = {"fold_div": SHIFT_FOLD_DIV}
SHIFTS = {"tsn": {}, "tsm": TSM}
# What the supplements compare MotionSqueeze and SELFY with.
COMPARED: dict[str, type[nn.Module]] = {
    "cpnet": CorrespondenceProposal,
    "nonlocal": NonLocal,
    "mhsa": MultiHeadSelfAttention,
    "localattention": LocalSelfAttention,
    "corrblock": CorrelationBlock,
}
# SELFY starts every residual branch at zero, beside its own block.
ZERO = {"zero_init": True}

MODELS: dict[str, _Entry] = {
    **{f"{s}_{d}": _Entry(RESNET, size | shift) for s, shift in SHIFTS.items() for d, size in DEPTHS.items()},
    **{
        f"msnet_{s}_{d}": _Entry(RESNET, size | shift, MotionSqueeze)
        for s, shift in SHIFTS.items()
        for d, size in DEPTHS.items()
    },
    **{
        f"selfynet_{s}_{d}": _Entry(RESNET, size | shift | ZERO, Selfy)
        for s, shift in SHIFTS.items()
        for d, size in DEPTHS.items()
    },
    **{f"{s}_mobilenetv2": _Entry(MOBILENET_V2, shift) for s, shift in SHIFTS.items()},
    # Its 32 channels are few enough to be matched as they are (MotionSqueeze supplement, section 3).
    "msnet_tsm_mobilenetv2": _Entry(MOBILENET_V2, TSM, MotionSqueeze, {"reduction": None}),
    "selfynet_tsm_mobilenetv2": _Entry(MOBILENET_V2, TSM | ZERO, Selfy),
    "i3d": _Entry(I3D, {}),
    "msnet_i3d": _Entry(I3D, {}, MotionSqueeze),
    "selfynet_i3d": _Entry(I3D, {}, Selfy),
    **{
        f"{name}_tsm_{depth}": _Entry(RESNET, DEPTHS[depth] | TSM, block)
        for name, block in COMPARED.items()
        for depth in ("r18", "r50")
    },
}


def list_models() -> list[str]:
    """The names ``build_model`` knows, in the order of the table."""
    return list(MODELS)


def block_fields(block: type[nn.Module]) -> list[str]:
    """Names of the options a motion block takes: its fields, less those every module has."""
    return [f.name for f in dataclasses.fields(block) if f.name not in {"parent", "name", "norm", "dtype"}]


def _selfy_resolution(cell: int) -> dict[str, int]:
    """Fields that make SELFY compare at 14x14 for a 224-pixel input wherever it stands (supplement, Table 3b).

    ``cell`` is the width in pixels of one cell at its site; it should be 16.
    """
    return {"stride": max(1, 16 // cell), "enlarge": max(1, cell // 16)}


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
    **fields: Any,
) -> VideoClassifier:
    """A named model, without parameters.

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
        remat: in training, compute what lies within residual, Inception and motion blocks a second time for the
            gradients instead of keeping it: less memory for a larger batch, the same numbers and parameters.
        **fields: fields of the motion block, such as ``radius=7`` or ``window=(9, 9, 9)``, and options of the
            backbone: ``shift_every`` of ResNets, ``stem_kernel`` of MobileNet-V2.

    Raises:
        ValueError: for an unknown name, a site the backbone lacks, or a field that neither block nor backbone has.

    >>> build_model("selfynet_tsm_r50", num_classes=174, window=(9, 9, 9)).num_classes
    174
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(MODELS)}")
    entry = MODELS[name]
    family = entry.family
    dtype = jnp.dtype(dtype)
    # Lists (from a JSON config, say) become tuples: a module's fields are hashable.
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    options = {key: fields.pop(key) for key in family.options if key in fields}
    allowed = block_fields(entry.block) if entry.block else []
    if unknown := sorted(set(fields) - set(allowed)):
        known = f"its block's fields are {', '.join(allowed)}" if allowed else "it has no motion block"
        known += f"; its backbone's are {', '.join(family.options)}" if family.options else ""
        raise ValueError(f"{name} has no field {', '.join(unknown)}; {known}")
    blocks = {}
    if entry.block:
        sites = (family.default_site,) if sites is None else sites
        if not sites or isinstance(sites, str):
            raise ValueError(
                f"sites must name the stages of the motion block, such as ({family.default_site!r},); got {sites!r}"
            )
        if unknown := sorted(set(sites) - set(family.sites)):
            raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(family.sites)}")
        for site in sites:
            own = _selfy_resolution(family.sites[site]) if entry.block is Selfy else {}
            blocks[site] = entry.block(**{**own, **entry.fields, **fields}, norm=norm, dtype=dtype)
    backbone = family.backbone(
        **{**entry.bound, **options},
        width=max(1, family.width * width // PUBLISHED_WIDTH),
        blocks=blocks,
        remat=remat,
        norm=norm,
        dtype=dtype,
    )
    return VideoClassifier(backbone=backbone, num_classes=num_classes, dropout=dropout, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The section ``model`` of a config.

    Attributes:
        name: a named model.
        width: 64 for the backbone as published, less for a narrow one in proportion.
        dropout: rate before the classifier.
        dtype: compute dtype, ``float32`` or ``bfloat16``.
        sites: where the motion block stands; None for the papers' site on this backbone.
        batch_norm: ``per_device`` statistics (as the originals), ``synchronised`` over the devices, or ``frozen``.
        remat: less memory in training for about a third more operations, as ``build_model`` takes it.
        block: fields of the motion block and options of the backbone, as ``build_model`` takes them.

    Raises:
        ValueError: for a value that is not allowed, named with its key.
    """

    name: str
    width: int
    dropout: float
    dtype: str
    sites: tuple[str, ...] | None
    batch_norm: str
    block: Mapping[str, Any]
    # Checkpoints from before this option lack it.
    remat: bool = False

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
            sites=None if self.sites is None else tuple(self.sites),
            norm=self.NORMS[self.batch_norm],
            remat=self.remat,
            **dict(self.block),
        )
