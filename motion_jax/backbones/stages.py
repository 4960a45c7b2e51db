"""What a backbone leaves behind: its stages by name, with motion blocks after some of them."""

from collections.abc import Collection, Mapping

import flax.linen as nn
import jax


class Stages:
    """Keeps the result of each stage, and sends it through the motion block that stands there.

    Attributes:
        named: stages in order, (b, t, h, w, c) each: ``res3`` is that stage, ``res3_motion`` its motion block.

    Raises:
        ValueError: for a block at a site that the backbone lacks.
    """

    def __init__(
        self, backbone: nn.Module, *, sites: Collection[str], blocks: Mapping[str, nn.Module] | None, train: bool
    ) -> None:
        self.named: dict[str, jax.Array] = {}
        self._blocks = blocks or {}
        self._train = train
        if unknown := sorted(set(self._blocks) - set(sites)):
            name = type(backbone).__name__
            raise ValueError(f"{name} has no site {', '.join(unknown)}; its sites are {', '.join(sites)}")

    def leave(self, site: str, x: jax.Array) -> jax.Array:
        """Keep ``x`` as the stage ``site``; what the next stage takes comes back."""
        self.named[site] = x
        if site in self._blocks:
            x = self.named[f"{site}_motion"] = self._blocks[site](x, train=self._train)
        return x
