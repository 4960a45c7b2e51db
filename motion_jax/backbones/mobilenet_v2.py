"""MobileNet-V2 applied to the frames of a clip, as TSN (frames apart) or TSM (channels shifted between frames)."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.backbones.protocol import BackboneNames, OtherLayout
from motion_jax.backbones.stages import check_sites, run, shift
from motion_jax.fields import Range, check_fields
from motion_jax.layers import BatchNorm, ConvBNAct

# Sites of motion blocks, and the width of a cell there in pixels of the clip.
SITES = {"stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 32}

PUBLISHED_WIDTH = 32
HEAD_WIDTH = 1280

# Inverted residuals of each stage after the stem: expansion, channels, how many, stride of the first.
INVERTED_RESIDUALS = {
    "stage2": ((1, 16, 1, 1), (6, 24, 2, 2)),
    "stage3": ((6, 32, 3, 2),),
    "stage4": ((6, 64, 4, 2), (6, 96, 3, 1)),
    "stage5": ((6, 160, 3, 2), (6, 320, 1, 1)),
}


def _layers(block: str, **numbers: int) -> tuple[tuple[str, str], ...]:
    """Pair our names of the layers of a block with the official ones: a convolution's number, and BN's after it."""
    parts = ((layer, part, n + i) for layer, n in numbers.items() for i, part in enumerate(("conv", "bn")))
    return tuple((rf"{block}\.{layer}_{part}", rf"features.\1.conv.{number}") for layer, part, number in parts)


def from_torchvision(name: str) -> str:
    """Return the TSM repository's name for torchvision's name of a tensor.

    torchvision groups convolution, BN and activation, except for the last convolution and BN, the linear ones.

    >>> [from_torchvision(f"features.2.conv.{layer}.weight") for layer in ("0.0", "1.1", "2", "3")]
    ['features.2.conv.0.weight', 'features.2.conv.4.weight', 'features.2.conv.6.weight', 'features.2.conv.7.weight']
    """
    found = re.fullmatch(r"features\.(\d+)\.conv\.(\d)(?:\.(\d))?\.(\w+)", name)
    if not found:
        return name
    block, group, layer, leaf = found.groups()
    if layer is None:
        linear = 1 if block == "1" else 2
        group, layer = linear, int(group) - linear
    return f"features.{block}.conv.{3 * int(group) + int(layer)}.{leaf}"


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter depth-wise by a 3x3, project by a linear 1x1; added to the input where both fit.

    Attributes:
        features: channels of the result.
        expansion: inner channels per input channel; 1 omits the first convolution.
        stride: in space, of the depth-wise convolution.
        fold_div: of the temporal shift before the expansion, in blocks that have both an expansion and a shortcut;
            None leaves the frames apart.
        zero_init: start the last BatchNorm's scale at zero where there is a shortcut.
        causal: shift from the past only.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: Sandler et al., MobileNetV2 (CVPR 2018), Table 1; the TSM repository's ops/models.py for the shift.
    """

    features: int
    expansion: int
    stride: int = 1
    fold_div: int | None = None
    zero_init: bool = False
    causal: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t y x d"]:
        """Apply the block to every frame."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        channels = x.shape[-1]
        has_shortcut = self.stride == 1 and channels == self.features
        shortcut, inner = x, channels * self.expansion
        if self.expansion != 1:
            if has_shortcut and self.fold_div is not None:
                x = shift(self, x, fold_div=self.fold_div, causal=self.causal)
            x = layer(x, inner, (1, 1), act=nn.relu6, name="expand")
        strides = (self.stride, self.stride)
        x = layer(x, inner, (3, 3), strides=strides, depthwise=True, act=nn.relu6, name="depthwise")
        scale_init = nn.initializers.zeros if has_shortcut and self.zero_init else nn.initializers.ones
        x = layer(x, self.features, (1, 1), act=None, scale_init=scale_init, name="project")
        return x + shortcut if has_shortcut else x


class MobileNetV2(nn.Module):
    """MobileNet-V2, frame by frame, with motion blocks after its stages.

    Attributes:
        width: channels of the stem, 32 as published. The inverted residuals scale with it, rounded to multiples of 8
            (at least 8, and at most a tenth below their share); the last 1280 channels never shrink.
        fold_div: of the temporal shift (8 in the papers), in features 3, 5, 6, 8, 9, 10, 12, 13, 15 and 16, which have
            a shortcut; None makes it TSN.
        stem_kernel: side of the first convolution, odd: 3 in the official code, for which ImageNet weights exist;
            7 in the MotionSqueeze supplement.
        blocks: site (``stage1`` .. ``stage5``) -> motion block applied to that stage's result.
        zero_init: start every residual branch at zero.
        causal: shift from the past only, so that no frame depends on a later one.
        remat: compute each inverted residual and motion block again for the gradients instead of keeping what is
            within, see ``run``.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: Sandler et al., MobileNetV2 (CVPR 2018), Table 2; MotionSqueeze supplement Table 4; the TSM repository's
    archs/mobilenet_v2.py.
    """

    width: int = PUBLISHED_WIDTH
    fold_div: int | None = None
    stem_kernel: Annotated[int, Range(1, 63)] = 3
    blocks: Mapping[str, nn.Module] | None = None
    zero_init: bool = False
    remat: bool = False
    causal: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> dict[str, jax.Array]:
        """Return the stages in order, (b, t, h, w, c) each: ``stage3`` and, after its motion block, ``stage3_motion``.

        Raises:
            ValueError: for a block at an unknown site, or an even ``stem_kernel``.
        """
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, 3 or 7 as published; got {self.stem_kernel}")
        blocks = self.blocks or {}
        check_sites(self, blocks, SITES)
        layer = functools.partial(ConvBNAct(self.norm, self.dtype, train), act=nn.relu6)
        apply = functools.partial(run, train=train, remat=self.remat)
        residual = functools.partial(
            InvertedResidual,
            fold_div=self.fold_div,
            zero_init=self.zero_init,
            causal=self.causal,
            norm=self.norm,
            dtype=self.dtype,
        )
        stages: dict[str, jax.Array] = {}
        x = layer(x, self.width, (self.stem_kernel, self.stem_kernel), strides=(2, 2), name="stem")
        count = 0
        for site in SITES:
            for expansion, channels, size, stride in INVERTED_RESIDUALS.get(site, ()):
                for index in range(size):
                    count += 1
                    block = residual(
                        features=_share_of(channels, self.width),
                        expansion=expansion,
                        stride=stride if index == 0 else 1,
                        name=f"features_{count}",
                    )
                    x = apply(block, x)
            if site == "stage5":  # ends with the channels of the classifier
                x = layer(x, _share_of(HEAD_WIDTH, max(self.width, PUBLISHED_WIDTH)), (1, 1), name="head")
            stages[site] = x
            if site in blocks:
                x = stages[f"{site}_motion"] = apply(blocks[site], x)
        return stages

    sites: ClassVar[Mapping[str, int]] = SITES
    default_site: ClassVar[str] = "stage3"
    published_width: ClassVar[int] = PUBLISHED_WIDTH
    options: ClassVar[tuple[str, ...]] = ("stem_kernel",)
    # As in the TSM repository.
    official_names: ClassVar[BackboneNames] = BackboneNames(
        modules=(
            (r"stem_conv", "features.0.0"),
            (r"stem_bn", "features.0.1"),
            # The first inverted residual has no expansion, so that its later layers have lower numbers.
            *_layers(r"features_(1)", depthwise=0, project=3),
            *_layers(r"features_(\d+)", expand=0, depthwise=3, project=6),
            (r"head_conv", "features.18.0"),
            (r"head_bn", "features.18.1"),
        ),
        anchor="features.0.1.weight",
        classifier="classifier",
        classifier_aliases=("classifier.1",),
        classifier_rank=0,
        shifted=r"features\.(3|5|6|8|9|10|12|13|15|16)\.conv\.0",
        other_layout=OtherLayout("features.1.conv.0.0.weight", from_torchvision),
    )

    @nn.nowrap
    def stage_of(self) -> Mapping[str, str]:
        """Return the stage of every submodule that is not part of the stem."""
        groups = ((site, size) for site, rows in INVERTED_RESIDUALS.items() for _, _, size, _ in rows)
        sites = [site for site, size in groups for _ in range(size)]
        names = {f"features_{number}": site for number, site in enumerate(sites, start=1)}
        return {**names, "head_conv": sites[-1], "head_bn": sites[-1]}

    @nn.nowrap
    def architecture(self) -> str:
        """Return the network's name in the official training code."""
        return "mobilenetv2"


def _share_of(channels: int, width: int) -> int:
    """Scale published channels to a stem of ``width``: the nearest multiple of 8, less than a tenth below.

    >>> [_share_of(24, width) for width in (4, 16, 24, 32)]
    [8, 16, 24, 24]
    """
    wanted = channels * width / PUBLISHED_WIDTH
    nearest = max(8, int(wanted / 8 + 0.5) * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8
