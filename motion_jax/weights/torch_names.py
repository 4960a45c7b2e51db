"""Official PyTorch names and layouts of the tensors of a network or block, from what these declare."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import flax.linen as nn
import numpy as np

from motion_jax.backbones.protocol import BackboneNames
from motion_jax.blocks.protocol import StandaloneNames, TensorNames, declared
from motion_jax.models import VideoClassifier

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# The official wrapper keeps the network in its ``base_model``, and a classifier with dropout before it outside.
_WRAPPED, _WRAPPED_CLASSIFIER = "base_model.", "new_fc"

Path = tuple[str, ...]


def names_of(model: nn.Module) -> "TorchNames | BlockNames":
    """Return the official names of a network of ``build_model`` or of a block that stands alone.

    Raises:
        ValueError: if the module is neither.
    """
    if hasattr(model, "backbone"):
        return TorchNames.of(model)
    names = declared(model, "official_names")
    if not isinstance(names, StandaloneNames):
        raise ValueError(
            f"{type(model).__name__} has no official tensor names: expected a model of build_model, or a TokenMotion"
        )
    return BlockNames(type(model).__name__, names)


@dataclasses.dataclass(frozen=True)
class TorchNames:
    """The official names of one network.

    A path is the keys from "params" or "batch_stats" to an array, such as ("params", "backbone", "conv1", "kernel"). A
    short name is the official name without prefix.

    Attributes:
        backbone: declaration of the backbone.
        blocks: declarations of the motion blocks, by site.
        shifted: whether the official layers are wrapped into the temporal shift.
        dropout: whether there is dropout before the classifier.
    """

    backbone: BackboneNames
    blocks: Mapping[str, TensorNames]
    shifted: bool
    dropout: bool

    @classmethod
    def of(cls, model: VideoClassifier) -> "TorchNames":
        """Return the names of a model.

        >>> import motion_jax
        >>> names = TorchNames.of(motion_jax.build_model("msnet_tsm_r18", num_classes=5))
        >>> names.short(("params", "backbone", "layer2_0", "downsample_bn", "scale"))
        'layer2.0.downsample.1.weight'
        >>> names.short(("batch_stats", "backbone", "blocks_res3", "transform2_pointwise_bn", "var"))
        'flow_refinement.conv2.4.running_var'
        >>> names.full("fc1.bias", prefix="module.base_model.")
        'module.new_fc.bias'
        >>> names.without_prefixes(["module.base_model.layer1.0.bn1.weight", "module.new_fc.weight"])
        {'module.base_model.layer1.0.bn1.weight': 'layer1.0.bn1.weight', 'module.new_fc.weight': 'fc1.weight'}
        """
        backbone = model.backbone
        blocks = (backbone.blocks or {}).items()
        return cls(
            backbone=backbone.official_names,
            blocks={site: declared(block, "official_names", TensorNames()) for site, block in blocks},
            # The official network for streams shifts outside of its layers.
            shifted=getattr(backbone, "fold_div", None) is not None and not getattr(backbone, "causal", False),
            dropout=model.dropout > 0,
        )

    def short(self, path: Path) -> str:
        """Return the short name of the array at ``path``.

        The official networks have one motion block. Blocks without an official name are called
        ``blocks.<site>.<path>``.
        """
        names, site, modules = self._owner(path)
        leaf = LEAVES.get(path[-1], path[-1])
        official = names.official(".".join(modules))
        if site and (official is None or len(self.blocks) > 1):
            return ".".join(("blocks", site, *modules, leaf))
        return f"{official or '.'.join(modules)}.{leaf}"

    def full(self, short: str, *, prefix: str) -> str:
        """Return a name as the official code has it, from a short name: the reverse of ``without_prefixes``."""
        layer, _, leaf = short.rpartition(".")
        if layer == self.backbone.classifier and self.dropout and prefix.endswith(_WRAPPED):
            return f"{prefix.removesuffix(_WRAPPED)}{_WRAPPED_CLASSIFIER}.{leaf}"
        wrapper = ".net" if self.shifted and self.backbone.wraps(layer) else ""
        return f"{prefix}{layer}{wrapper}.{leaf}"

    def unused(self) -> dict[str, int]:
        """Return the short names of the BN layers that the official network has and never uses, with their channels."""
        names = [name for name in self.backbone.unused if all(name in block.unused for block in self.blocks.values())]
        return dict.fromkeys(names, self.backbone.unused_channels)

    def is_unused(self, short: str) -> bool:
        """Whether no network of this kind uses a tensor."""
        layer, _, leaf = short.rpartition(".")
        return layer in self.backbone.unused or leaf == "num_batches_tracked"

    def without_prefixes(self, names: Sequence[str], *, only: str = "") -> dict[str, str]:
        """Map the names of a checkpoint that start with ``only`` to short names.

        The prefix is what stands before the first layer, such as ``module.base_model.``. The classifier may be one or
        more levels above. Names of another library's layout are translated.
        """
        names = [name for name in names if name.startswith(only)]
        anchor, other = self.backbone.anchor, self.backbone.other_layout
        prefix = next((name.removesuffix(anchor) for name in names if name.endswith(anchor)), "")
        parts = prefix.split(".")[:-1]
        prefixes = [".".join(parts[:end]) + "." for end in range(len(parts), 0, -1)]
        translate = other.translate if other and f"{prefix}{other.anchor}" in names else str
        found = {}
        for name in names:
            short = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
            layer, _, leaf = translate(short.replace(".net.", ".")).rpartition(".")
            if layer in (_WRAPPED_CLASSIFIER, *self.backbone.classifier_aliases):
                layer = self.backbone.classifier
            found[name] = f"{layer}.{leaf}" if layer else leaf
        return found

    def to_torch(self, path: Path, array: np.ndarray) -> np.ndarray:
        """Return one of our arrays in PyTorch's layout, with as many axes as in the official code."""
        if path[-1] != "kernel":
            return array
        return _kernel_to_torch(array, axes=self._channel_axes(path), rank=self._rank(path, array.ndim - 2))

    def from_torch(self, path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return a PyTorch tensor in our layout, or None if it cannot have ``shape``."""
        if path[-1] != "kernel":
            return array if array.shape == shape else None
        return _kernel_from_torch(array, shape, axes=self._channel_axes(path))

    def _owner(self, path: Path) -> tuple[TensorNames, str, tuple[str, ...]]:
        """Return the declaration for the array at ``path``, its site if it is in a motion block, and its modules."""
        _, part, *modules, _ = path
        if part == "classifier":
            return TensorNames(((part, self.backbone.classifier),)), "", (part,)
        first, *rest = modules
        if first.startswith("blocks_"):
            site = first.removeprefix("blocks_")
            return self.blocks[site], site, tuple(rest)
        return self.backbone, "", tuple(modules)

    def _channel_axes(self, path: Path) -> tuple[int, int]:
        """Return which axes of our kernel (*kernel, in, out) are the first two of PyTorch's.

        PyTorch has (out, in, *kernel) in convolutions, and (in, out, *kernel) in transposed convolutions.
        """
        names, _, modules = self._owner(path)
        return (-2, -1) if modules and modules[-1] in names.transposed else (-1, -2)

    def _rank(self, path: Path, rank: int) -> int:
        """Return the number of spatial axes of the official kernel, where ours has ``rank``."""
        names, site, modules = self._owner(path)
        if modules == ("classifier",):
            return self.backbone.classifier_rank
        published = not site or len(self.blocks) == 1
        return max(rank, 3) if published and re.fullmatch(names.three_dimensional, ".".join(modules)) else rank


@dataclasses.dataclass(frozen=True)
class BlockNames:
    """The official names of a block that stands alone, with the methods of ``TorchNames``.

    Attributes:
        block: the name of its class, for messages.
        declared: its declaration.
    """

    block: str
    declared: StandaloneNames

    def short(self, path: Path) -> str:
        """Return the name of the array at ``path`` without a prefix.

        >>> from motion_jax.blocks import TokenMotion
        >>> names = BlockNames("TokenMotion", TokenMotion.official_names)
        >>> names.short(("params", "encoder0_extraction_conv", "kernel"))
        'stss_encoders.0.stss_extraction.conv0.0.weight'
        >>> names.short(("params", "layerscale"))
        'layerscale'
        """
        _, *modules, leaf = path
        if not modules:
            return leaf
        ours = ".".join(modules)
        return f"{self.declared.official(ours) or ours}.{LEAVES.get(leaf, leaf)}"

    def full(self, short: str, *, prefix: str) -> str:
        """Return a name as the official code has it."""
        return f"{prefix}{short}"

    def unused(self) -> dict[str, int]:
        """Return the layers that the official block has and never uses: none."""
        return {}

    def is_unused(self, short: str) -> bool:
        """Whether no block of this kind uses a tensor."""
        return short.endswith("num_batches_tracked")

    def without_prefixes(self, names: Sequence[str], *, only: str = "") -> dict[str, str]:
        """Map the names of a checkpoint that start with ``only`` to short names. Old names are translated first.

        Raises:
            ValueError: if there are several blocks among the names.
        """
        official = {name: self.declared.translate(name) for name in names}
        official = {name: new for name, new in official.items() if new.startswith(only)}
        pattern = rf"((?:.*\.)?){re.escape(self.declared.root)}.*"
        prefixes = {match[1]: None for new in official.values() if (match := re.fullmatch(pattern, new))}
        if len(prefixes) > 1:
            raise ValueError(
                f"there are {len(prefixes)} blocks {self.block} among the tensors, with the prefixes "
                f"{', '.join(prefixes)}: choose one with prefix="
            )
        prefix = next(iter(prefixes), "")
        return {name: new.removeprefix(prefix) for name, new in official.items()}

    def to_torch(self, path: Path, array: np.ndarray) -> np.ndarray:
        """Return one of our arrays in PyTorch's layout, with as many axes as in the official code."""
        if path[-1] != "kernel":
            return array
        rank = 3 if re.fullmatch(self.declared.three_dimensional, ".".join(path[1:-1])) else array.ndim - 2
        return _kernel_to_torch(array, axes=(-1, -2), rank=rank)

    def from_torch(self, path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return a PyTorch tensor in our layout, or None if it cannot have ``shape``."""
        if path[-1] != "kernel":
            return array if array.shape == shape else None
        return _kernel_from_torch(array, shape, axes=(-1, -2))


def _kernel_to_torch(kernel: np.ndarray, *, axes: tuple[int, int], rank: int) -> np.ndarray:
    """Return our kernel (*kernel, in, out) in PyTorch's layout with ``rank`` spatial axes.

    Args:
        kernel: of a convolution or Linear.
        axes: our axes that are PyTorch's first two.
        rank: our 3x3 is a 1x3x3 there, and our classifier a convolution of size 1.
    """
    *space, _, _ = kernel.shape
    kernel = np.moveaxis(kernel, axes, (0, 1))
    return kernel.reshape(*kernel.shape[:2], *(1,) * (rank - len(space)), *space)


def _kernel_from_torch(kernel: np.ndarray, shape: tuple[int, ...], *, axes: tuple[int, int]) -> np.ndarray | None:
    """Return PyTorch's kernel in our layout, or None if it cannot have ``shape``."""
    if kernel.ndim < 2:
        return None
    kernel = np.moveaxis(kernel, (0, 1), axes)
    *space, inputs, outputs = shape
    if kernel.shape[-2:] != (inputs, outputs):
        return None
    if [n for n in kernel.shape[:-2] if n != 1] != [n for n in space if n != 1]:
        return None
    return kernel.reshape(shape)
