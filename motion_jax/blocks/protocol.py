"""The protocol of motion blocks: what every block is, and what it may declare in its own file."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
from jaxtyping import Array, Float

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Operations:
    """Operations by kind, in the convention of ``motion_jax.profiling.operations``.

    Attributes:
        conv_fc: operations of convolutions and fully connected layers.
        bn: operations of batch normalisation.
        correlation: operations of comparing positions and of gathering by the result.
        other: operations of softmax and average pooling.
    """

    conv_fc: int = 0
    bn: int = 0
    correlation: int = 0
    other: int = 0

    @classmethod
    def softmax(cls, vectors: int, length: int) -> "Operations":
        """Return the cost of ``vectors`` softmaxes over ``length`` values each."""
        return cls(other=vectors * (3 * length - 1))

    @property
    def total(self) -> int:
        """Sum over all kinds."""
        return self.conv_fc + self.bn + self.correlation + self.other

    def __add__(self, more: "Operations") -> "Operations":
        return Operations(*(getattr(self, f.name) + getattr(more, f.name) for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """Names and layouts of a module's tensors in the official PyTorch code.

    Attributes:
        modules: pairs of a pattern for our path of submodules and a template for the official one. The first pattern
            that matches the whole path applies.
        transposed: our submodules that are transposed convolutions in the official code.
        three_dimensional: pattern for our submodules whose official kernels have three spatial axes.
        unused: BN layers without a use in the official network. A state dict holds such a layer if the backbone and
            every motion block name it.
    """

    modules: tuple[tuple[str, str], ...] = ()
    transposed: tuple[str, ...] = ()
    three_dimensional: str = ""
    unused: tuple[str, ...] = ()

    def official(self, ours: str) -> str | None:
        """Return the official name of a submodule, or None if no pattern matches.

        >>> TensorNames(((r"layer(\\d)_conv", r"layers.\\1.0"),)).official("layer2_conv")
        'layers.2.0'
        """
        matches = ((re.fullmatch(pattern, ours), template) for pattern, template in self.modules)
        return next((match.expand(template) for match, template in matches if match), None)


@dataclasses.dataclass(frozen=True)
class Similarities:
    """What a block compares: each cell of its map with a window around it in other frames.

    Attributes:
        values: similarities (b, t, h, w, l, u, v), float32 at least; u is vertical and v horizontal, each with its
            centre in the middle. 0 where the other frame or cell does not exist.
        offsets: the l temporal offsets, in frames of the map.
        step: cells of the map between neighbours of the window.
        sigma: width of the Gaussian around the best match for the expected displacement, in steps; None for none.
        temperature: multiplier of the scores for the expected displacement.
        cosine: whether the values are cosines, which are 1 at most.
    """

    values: Float[Array, "b t h w l u v"]
    offsets: tuple[int, ...]
    step: int = 1
    sigma: float | None = 5.0
    temperature: float = 100.0
    cosine: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandaloneNames(TensorNames):
    """Names and layouts of a block that is used without a network of this library.

    Attributes:
        root: start of the official names of the block's first submodules. What stands before it in a checkpoint is the
            prefix of all names.
        input_width: our paths of arrays with one value per channel of the input.
        translate: from a name in older files to the official name.
    """

    root: str
    input_width: tuple[tuple[str, ...], ...]
    translate: Callable[[str], str] = str


class MotionBlock(Protocol):
    """A Flax module from features (b, t, h, w, c) to features of the same shape.

    Attributes:
        norm: a ``BatchNorm`` with its options bound, for every normalisation in the block.
        dtype: compute dtype.
    """

    norm: Callable[..., nn.Module]
    dtype: Any

    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Apply the block."""


class Declarations(Protocol):
    """Optional members of a motion block. ``declared`` reads them; a block without them works everywhere too.

    Attributes:
        official_names: names of the block's tensors in the official code. Without it, tensors are called
            ``blocks.<site>.<our path>`` in PyTorch files.
        narrow_fields: fields for backbones of an eighth of the published width.
    """

    official_names: ClassVar[TensorNames]
    narrow_fields: ClassVar[Mapping[str, Any]]

    def operations(self, shape: Shape) -> Operations:
        """Return the cost of a call on features of ``shape`` (b, t, h, w, c), without its Conv, Dense and BatchNorm.

        Without this method, the matrix products and convolutions of the traced call are counted.
        """

    @classmethod
    def fields_at(cls, cell: int) -> Mapping[str, Any]:
        """Return default fields for a site where one cell of the map is ``cell`` pixels wide."""

    @classmethod
    def published_fields(cls, frames: int) -> Mapping[str, Any]:
        """Return the fields that a paper prints for clips of ``frames`` frames, which every config states."""

    def displacement_reach(self) -> int:
        """Return the length of one unit of the ``displacement`` that the block sows, in cells of its map."""

    def similarities(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Similarities:
        """Return the similarities that a call on ``x`` computes, for pictures and pages.

        Args:
            variables: the variables of the block alone.
            x: input of the block.
        """

    def match_margin(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Float[Array, " b"]:
        """Return the smallest margin per clip between the best match and the second-best one.

        For blocks that choose a best match: exports are not compared on clips where rounding decides the choice.
        """


def declared(block: MotionBlock | type[MotionBlock] | nn.Module | None, name: str, default: Any = None) -> Any:
    """Return the member of ``Declarations`` called ``name``, or ``default`` if the block does not declare it."""
    found = getattr(block, name, None)
    return default if found is None else found
