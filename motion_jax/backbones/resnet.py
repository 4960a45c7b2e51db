"""ResNet applied to the frames of a clip, as TSN (frames apart) or TSM (channels shifted between frames)."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.backbones.protocol import BackboneNames
from motion_jax.backbones.stages import check_sites, run, shift
from motion_jax.fields import Range, check_fields
from motion_jax.layers import BatchNorm, ConvBNAct
from motion_jax.ops import max_pool, residual_sum

# Sites of motion blocks, and the width of a cell there in pixels of the clip.
SITES = {"pool1": 4, "res2": 4, "res3": 8, "res4": 16, "res5": 32}

PUBLISHED_WIDTH = 64


class ResidualBlock(nn.Module):
    """A basic block (3x3, 3x3) or a bottleneck (1x1, 3x3, 1x1) with the temporal shift on its residual branch.

    Attributes:
        features: channels of the result.
        bottleneck: three convolutions with an inner width of ``features // 4``, the stride on the 3x3.
        stride: in space, of the block.
        fold_div: of the temporal shift before the first convolution; None leaves the frames apart.
        zero_init: start the last BatchNorm's scale at zero, so that the block starts as its shortcut.
        causal: shift from the past only.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: torchvision resnet.py, ``BasicBlock`` and ``Bottleneck``; TSM, section 4 ("residual shift").
    """

    features: int
    bottleneck: bool
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
        shortcut, strides = x, (self.stride, self.stride)
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = layer(x, self.features, (1, 1), strides=strides, act=None, name="downsample")
        if self.fold_div is not None:
            x = shift(self, x, fold_div=self.fold_div, causal=self.causal)
        last = {"act": None, "scale_init": nn.initializers.zeros if self.zero_init else nn.initializers.ones}
        if self.bottleneck:
            inner = self.features // 4
            x = layer(x, inner, (1, 1), name=("conv1", "bn1"))
            x = layer(x, inner, (3, 3), strides=strides, name=("conv2", "bn2"))
            x = layer(x, self.features, (1, 1), name=("conv3", "bn3"), **last)
        else:
            x = layer(x, self.features, (3, 3), strides=strides, name=("conv1", "bn1"))
            x = layer(x, self.features, (3, 3), name=("conv2", "bn2"), **last)
        return residual_sum(x, shortcut)


class ResNet(nn.Module):
    """ResNet-18/34 (basic blocks) or 50/101 (bottlenecks), frame by frame, with motion blocks after its stages.

    Attributes:
        stage_sizes: residual blocks in res2..res5.
        bottleneck: bottlenecks instead of basic blocks.
        width: channels of the stem; res2..res5 have 1, 2, 4, 8 times as many, and 4 times that with bottlenecks.
        fold_div: of the temporal shift in residual blocks (8 in the papers); None makes it TSN.
        shift_every: shift only every n-th residual block of a stage (the TSM repository's ResNet-101 takes 2).
        blocks: site (``pool1``, ``res2`` .. ``res5``) -> motion block applied to that stage's result.
        zero_init: start every residual branch at zero (the SELFY code does, MotionSqueeze's does not).
        causal: shift from the past only, so that no frame depends on a later one.
        remat: compute each residual and motion block again for the gradients instead of keeping what is
            within, see ``run``.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: torchvision resnet.py; MotionSqueeze supplement Table 3; SELFY supplement Table 1.
    """

    stage_sizes: tuple[int, int, int, int]
    bottleneck: bool
    width: int = PUBLISHED_WIDTH
    fold_div: int | None = None
    shift_every: Annotated[int, Range(1, 64)] = 1
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
        """Return the stages in order, (b, t, h, w, c) each: ``res3`` and, after its motion block, ``res3_motion``.

        Raises:
            ValueError: for a block at an unknown site.
        """
        blocks = self.blocks or {}
        check_sites(self, blocks, SITES)
        layer = ConvBNAct(self.norm, self.dtype, train)
        apply = functools.partial(run, train=train, remat=self.remat)
        residual = functools.partial(
            ResidualBlock,
            bottleneck=self.bottleneck,
            zero_init=self.zero_init,
            causal=self.causal,
            norm=self.norm,
            dtype=self.dtype,
        )
        x = layer(x, self.width, (7, 7), strides=(2, 2), name=("conv1", "bn1"))
        x = max_pool(x, window=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        stages = {"pool1": x}
        if "pool1" in blocks:
            x = stages["pool1_motion"] = apply(blocks["pool1"], x)
        _, *sites = SITES
        for stage, (site, size) in enumerate(zip(sites, self.stage_sizes, strict=True)):
            for index in range(size):
                block = residual(
                    features=self.width * 2**stage * (4 if self.bottleneck else 1),
                    stride=2 if stage > 0 and index == 0 else 1,
                    fold_div=self.fold_div if index % self.shift_every == 0 else None,
                    name=f"layer{stage + 1}_{index}",
                )
                x = apply(block, x)
            stages[site] = x
            if site in blocks:
                x = stages[f"{site}_motion"] = apply(blocks[site], x)
        return stages

    sites: ClassVar[Mapping[str, int]] = SITES
    default_site: ClassVar[str] = "res3"
    published_width: ClassVar[int] = PUBLISHED_WIDTH
    options: ClassVar[tuple[str, ...]] = ("shift_every",)
    # As in torchvision. MotionSqueeze's repository has a BN after the network that it never uses.
    official_names: ClassVar[BackboneNames] = BackboneNames(
        modules=(
            (r"(layer\d)_(\d+)\.downsample_conv", r"\1.\2.downsample.0"),
            (r"(layer\d)_(\d+)\.downsample_bn", r"\1.\2.downsample.1"),
            (r"(layer\d)_(\d+)\.(\w+)", r"\1.\2.\3"),
        ),
        unused=("bn2",),
        unused_channels=128,
        anchor="layer1.0.bn1.weight",
        classifier="fc1",
        classifier_aliases=("fc",),
        classifier_rank=1,
    )

    @nn.nowrap
    def stage_of(self) -> Mapping[str, str]:
        """Return the stage of every submodule that is not part of the stem."""
        _, *sites = SITES
        sizes = enumerate(zip(sites, self.stage_sizes, strict=True), start=1)
        return {f"layer{number}_{index}": site for number, (site, size) in sizes for index in range(size)}

    @nn.nowrap
    def architecture(self) -> str:
        """Return the network's name in the official training code, such as ``resnet50``."""
        return f"resnet{sum(self.stage_sizes) * (3 if self.bottleneck else 2) + 2}"
