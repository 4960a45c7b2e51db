"""What the backbones share: motion blocks at sites, and blocks computed again for the gradient."""

from collections.abc import Collection, Mapping

import flax.linen as nn
import jax

from motion_jax.layers import past_frames
from motion_jax.ops import temporal_shift


def check_sites(backbone: nn.Module, blocks: Mapping[str, nn.Module], sites: Collection[str]) -> None:
    """Raise a ValueError for a motion block at a site that the backbone lacks."""
    if unknown := sorted(set(blocks) - set(sites)):
        name = type(backbone).__name__
        raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(sites)}")


def shift(module: nn.Module, x: jax.Array, *, fold_div: int, causal: bool) -> jax.Array:
    """Apply the temporal shift within ``module``; the causal form goes on from the frames before in a stream."""
    if not causal:
        return temporal_shift(x, fold_div=fold_div)
    previous = past_frames(module, x[..., : x.shape[-1] // fold_div], 1, name="shifted")
    return temporal_shift(x, fold_div=fold_div, causal=True, previous=previous)


def run(block: nn.Module, x: jax.Array, *, train: bool, remat: bool) -> jax.Array:
    """Apply a block.

    With ``remat``, training keeps only the input of the block and computes its inside a second time for the gradients:
    less memory, about a third more operations, the same numbers.
    """
    if train and remat:
        return nn.remat(lambda block, x: block(x, train=True))(block, x)
    return block(x, train=train)
