"""What the backbones share: motion blocks at sites, and blocks computed again for the gradient."""

from collections.abc import Collection, Mapping

import flax.linen as nn
import jax


def check_sites(backbone: nn.Module, blocks: Mapping[str, nn.Module], sites: Collection[str]) -> None:
    """Raise a ValueError for a motion block at a site that the backbone lacks."""
    if unknown := sorted(set(blocks) - set(sites)):
        name = type(backbone).__name__
        raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(sites)}")


def run(block: nn.Module, x: jax.Array, *, train: bool, remat: bool) -> jax.Array:
    """Apply a block.

    With ``remat``, training keeps only the input of the block and computes its inside a second time for the gradients:
    less memory, about a third more operations, the same numbers.
    """
    if train and remat:
        return nn.remat(lambda block, x: block(x, train=True))(block, x)
    return block(x, train=train)
