"""I3D: Inception with batch normalisation, its convolutions inflated over time."""

import functools
from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.backbones.protocol import BackboneNames
from motion_jax.backbones.stages import check_sites, run
from motion_jax.layers import BatchNorm, ConvBNAct
from motion_jax.ops import max_pool

# Sites of motion blocks, and the width of a cell there in pixels of the clip.
SITES = {f"inc_{letter}": cell for letters, cell in (("ab", 8), ("cdefg", 16), ("hi", 32)) for letter in letters}

PUBLISHED_WIDTH = 64

# The Inception block of each site: the name of I3D's code (one letter past GoogLeNet's, where this is 3a, 3b, 4a ..),
# and the channels of its branches: 1x1 | 1x1, 3x3 | 1x1, 3x3 (5x5 in GoogLeNet) | 1x1 after the pool.
INCEPTION_BLOCKS = {
    "inc_a": ("mixed_3b", (64, 96, 128, 16, 32, 32)),
    "inc_b": ("mixed_3c", (128, 128, 192, 32, 96, 64)),
    "inc_c": ("mixed_4b", (192, 96, 208, 16, 48, 64)),
    "inc_d": ("mixed_4c", (160, 112, 224, 24, 64, 64)),
    "inc_e": ("mixed_4d", (128, 128, 256, 24, 64, 64)),
    "inc_f": ("mixed_4e", (112, 144, 288, 32, 64, 64)),
    "inc_g": ("mixed_4f", (256, 160, 320, 32, 128, 128)),
    "inc_h": ("mixed_5b", (256, 160, 320, 32, 128, 128)),
    "inc_i": ("mixed_5c", (384, 192, 384, 48, 128, 128)),
}


class ConvUnit(nn.Module):
    """Convolution, BN, ReLU.

    Attributes:
        features: channels of the result.
        kernel_size: one odd number per axis, over (t, h, w) or over (h, w) of each frame; the padding keeps the size.
        stride: in every axis of the kernel.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.
    """

    features: int
    kernel_size: tuple[int, ...]
    stride: int = 1
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t y x d"]:
        """Apply the unit to clips."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        strides = (self.stride,) * len(self.kernel_size)
        return layer(x, self.features, self.kernel_size, strides=strides, name=("conv", "bn"))


class InceptionBlock(nn.Module):
    """Four branches, concatenated: 1x1x1; 1x1x1 and 3x3x3, twice; a 3x3x3 max pool and 1x1x1.

    Attributes:
        branches: channels of the six convolutions, in the order of ``INCEPTION_BLOCKS``.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: Carreira and Zisserman, Quo Vadis (CVPR 2017), Figure 3.
    """

    branches: tuple[int, int, int, int, int, int]
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w d"]:
        """Apply the block to clips."""
        conv_unit = functools.partial(ConvUnit, norm=self.norm, dtype=self.dtype)

        def unit(x: jax.Array, index: int, side: int, name: str) -> jax.Array:
            return conv_unit(self.branches[index], (side, side, side), name=name)(x, train=train)

        pooled = _max_pool(x, (3, 3, 3), strides=(1, 1, 1))
        results = [
            unit(x, 0, 1, "branch_0"),
            unit(unit(x, 1, 1, "branch_1_0"), 2, 3, "branch_1_1"),
            unit(unit(x, 3, 1, "branch_2_0"), 4, 3, "branch_2_1"),
            unit(pooled, 5, 1, "branch_3_1"),
        ]
        return jnp.concatenate(results, axis=-1)


class InceptionI3D(nn.Module):
    """I3D for clips of 8 or 16 frames, with motion blocks after its Inception blocks.

    Time is halved (rounded up) before inc_c and before inc_h only: all frames reach the default site, inc_b, and a
    quarter of them, 2 of 8, the classifier. Departures from the published network, as in the MotionSqueeze supplement:
    the first kernel is 1x7x7, not 7x7x7, and does not stride over time. As in all backbones here, padding is symmetric
    (the original pads the far side first), and BN has a scale and an epsilon of 1e-5 (the original has 1e-3:
    ``norm=functools.partial(BatchNorm, epsilon=1e-3)``). The label Inc(b) of the supplement's figure is not explained;
    it is taken as the second Inception block, GoogLeNet's 3b, the last one at 28x28.

    Attributes:
        width: channels of the stem, 64 as published; all others scale with it.
        blocks: site (``inc_a`` .. ``inc_i``) -> motion block applied to that Inception block's result.
        remat: compute each Inception and motion block again for the gradients instead of keeping what is
            within, see ``run``.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype.

    Source: Carreira and Zisserman, Quo Vadis (CVPR 2017), Figure 3; Szegedy et al., Going Deeper with Convolutions
    (CVPR 2015), Table 1, for the channels; MotionSqueeze supplement, section 3 and Figure 1.
    """

    width: int = PUBLISHED_WIDTH
    blocks: Mapping[str, nn.Module] | None = None
    remat: bool = False
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> dict[str, jax.Array]:
        """Return the stages in order, (b, t', h, w, c) each: ``inc_b`` and, after its motion block, ``inc_b_motion``.

        Raises:
            ValueError: for a block at an unknown site.
        """
        blocks = self.blocks or {}
        check_sites(self, blocks, SITES)
        apply = functools.partial(run, train=train, remat=self.remat)
        conv_unit, inception_block = (
            functools.partial(module, norm=self.norm, dtype=self.dtype) for module in (ConvUnit, InceptionBlock)
        )

        def scaled(channels: int) -> int:
            return max(1, channels * self.width // PUBLISHED_WIDTH)

        stages: dict[str, jax.Array] = {}
        x = conv_unit(scaled(64), (7, 7), stride=2, name="conv3d_1a_7x7")(x, train=train)
        x = _max_pool(x, (1, 3, 3), strides=(1, 2, 2))
        x = conv_unit(scaled(64), (1, 1, 1), name="conv3d_2b_1x1")(x, train=train)
        x = conv_unit(scaled(192), (3, 3, 3), name="conv3d_2c_3x3")(x, train=train)
        x = _max_pool(x, (1, 3, 3), strides=(1, 2, 2))
        for site, (name, branches) in INCEPTION_BLOCKS.items():
            if site == "inc_c":
                x = _max_pool(x, (3, 3, 3), strides=(2, 2, 2))
            if site == "inc_h":
                x = _max_pool(x, (2, 2, 2), strides=(2, 2, 2))
            x = apply(inception_block(tuple(scaled(channels) for channels in branches), name=name), x)
            stages[site] = x
            if site in blocks:
                x = stages[f"{site}_motion"] = apply(blocks[site], x)
        return stages

    sites: ClassVar[Mapping[str, int]] = SITES
    default_site: ClassVar[str] = "inc_b"
    published_width: ClassVar[int] = PUBLISHED_WIDTH
    options: ClassVar[tuple[str, ...]] = ()
    # As in its port to PyTorch, hassony2/kinetics_i3d_pytorch.
    official_names: ClassVar[BackboneNames] = BackboneNames(
        modules=(
            (r"(conv3d_\w+|mixed_\w+\.branch_0)\.conv", r"\1.conv3d"),
            (r"(conv3d_\w+|mixed_\w+\.branch_0)\.bn", r"\1.batch3d"),
            (r"(mixed_\w+\.branch_\d)_(\d)\.conv", r"\1.\2.conv3d"),
            (r"(mixed_\w+\.branch_\d)_(\d)\.bn", r"\1.\2.batch3d"),
        ),
        three_dimensional=r".*",
        anchor="mixed_3b.branch_0.batch3d.weight",
        classifier="conv3d_0c_1x1.conv3d",
        classifier_aliases=(),
        classifier_rank=3,
    )

    @nn.nowrap
    def stage_of(self) -> Mapping[str, str]:
        """Return the stage of every submodule that is not part of the stem."""
        return {name: site for site, (name, _) in INCEPTION_BLOCKS.items()}

    @nn.nowrap
    def architecture(self) -> str:
        """Return a name for checkpoints; the official training code has no I3D."""
        return "i3d"


def _max_pool(x: jax.Array, window: tuple[int, ...], *, strides: tuple[int, ...]) -> jax.Array:
    """Max pool over (t, h, w) to ``ceil(n / stride)`` cells per axis, with symmetric padding.

    A window of two over an odd axis is padded by one cell at the end, so that it covers every frame.
    """
    sides = zip(window, x.shape[1:4], strict=True)
    padding = [(side // 2, side // 2) if side % 2 else (0, size % side) for side, size in sides]
    return max_pool(x, window=window, strides=strides, padding=padding)
