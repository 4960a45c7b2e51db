"""What a backbone leaves behind: its stages by name, with motion blocks after some of them."""

from collections.abc import Collection, Mapping

import flax.linen as nn
import jax


class Stages:
    """Runs the blocks of a backbone, keeps the result of each stage, and sends it through the motion block there.

    With ``remat``, training keeps only what enters a block and computes what lies within a second time for the
    gradients: less memory, about a third more operations, the same numbers.

    Attributes:
        named: stages in order, (b, t, h, w, c) each: ``res3`` is that stage, ``res3_motion`` its motion block.

    Raises:
        ValueError: for a block at a site that the backbone lacks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        sites: Collection[str],
        blocks: Mapping[str, nn.Module] | None,
        train: bool,
        remat: bool = False,
    ) -> None:
        self.named: dict[str, jax.Array] = {}
        self._blocks = blocks or {}
        self._train = train
        self._remat = remat
        if unknown := sorted(set(self._blocks) - set(sites)):
            name = type(backbone).__name__
            raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(sites)}")

    def run(self, block: nn.Module, x: jax.Array) -> jax.Array:
        """Send ``x`` through a block."""
        if self._train and self._remat:
            return nn.remat(lambda block, x: block(x, train=True))(block, x)
        return block(x, train=self._train)

    def record(self, site: str, x: jax.Array) -> jax.Array:
        """Keep ``x`` as the stage ``site``; what the next stage takes comes back."""
        self.named[site] = x
        if site in self._blocks:
            x = self.named[f"{site}_motion"] = self.run(self._blocks[site], x)
        return x
