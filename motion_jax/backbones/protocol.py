"""The protocol of backbones: how they are called, and what they declare for the rest of the library."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import TensorNames


@dataclasses.dataclass(frozen=True)
class OtherLayout:
    """Another library's names for the same network.

    Attributes:
        anchor: a tensor that exists in that library's layout alone.
        translate: from a name in that layout to the official name.
    """

    anchor: str
    translate: Callable[[str], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneNames(TensorNames):
    """Names and layouts of a backbone's tensors in the official PyTorch code, and of the classifier after it.

    Attributes:
        anchor: a tensor that every network of this kind has, and no other kind. What stands before it in a checkpoint
            is the prefix of all names.
        classifier: official name of the classifier.
        classifier_aliases: its names in other libraries.
        classifier_rank: spatial axes of the classifier's official kernel.
        shifted: pattern for official layers that the code wraps into the temporal shift, as ``<layer>.net``.
        unused_channels: channels of the ``unused`` BN layers.
        other_layout: another library's names, or None.
    """

    anchor: str
    classifier: str
    classifier_aliases: tuple[str, ...]
    classifier_rank: int
    shifted: str = ""
    unused_channels: int = 0
    other_layout: OtherLayout | None = None

    def wraps(self, layer: str) -> bool:
        """Whether the official code wraps a layer into the temporal shift, in networks that shift."""
        return re.fullmatch(self.shifted, layer) is not None


class Backbone(Protocol):
    """A Flax module from normalised clips (b, t, h, w, 3) to named stages, in order; the last one is classified.

    Its submodule for the motion block at a site is called ``blocks_<site>``, and the block's result
    ``<site>_motion``.

    Attributes:
        sites: stages after which a motion block may stand, and the width of one cell there in pixels of the clip.
        default_site: where the papers put the motion block.
        published_width: channels of the published stem.
        options: fields that ``build_model`` takes as keywords beside those of the motion block.
        official_names: names of the tensors in the official code.
        width: channels of the stem.
        blocks: site -> motion block.
        fold_div: the temporal shift moves ``1 / fold_div`` of the channels each way; None without shift. Backbones
            that cannot shift lack it.
    """

    sites: ClassVar[Mapping[str, int]]
    default_site: ClassVar[str]
    published_width: ClassVar[int]
    options: ClassVar[tuple[str, ...]]
    official_names: ClassVar[BackboneNames]
    width: int
    blocks: Mapping[str, nn.Module] | None

    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> dict[str, jax.Array]:
        """Return the stages by name, (b, t, h, w, c) each."""

    def stage_of(self) -> Mapping[str, str]:
        """Return the stage of every submodule that is not part of the stem."""

    def architecture(self) -> str:
        """Return the network's name in the official training code, such as ``resnet50``."""
