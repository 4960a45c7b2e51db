"""Official PyTorch names and layouts of a network's tensors, from what its backbone and motion blocks declare."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from motion_jax.backbones.protocol import BackboneNames
from motion_jax.blocks.protocol import TensorNames, declared
from motion_jax.models import VideoClassifier

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# The official wrapper keeps the network in its ``base_model``, and a classifier with dropout before it outside.
_WRAPPED, _WRAPPED_CLASSIFIER = "base_model.", "new_fc"

Path = tuple[str, ...]


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

    def without_prefixes(self, names: Sequence[str]) -> dict[str, str]:
        """Map the names of a checkpoint to short names.

        The prefix is what stands before the first layer, such as ``module.base_model.``. The classifier may be one or
        more levels above. Names of another library's layout are translated.
        """
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
        *space, _, _ = array.shape
        array = np.moveaxis(array, self._channel_axes(path), (0, 1))
        # Our 3x3 is a 1x3x3 there, and our classifier a convolution of size 1.
        return array.reshape(*array.shape[:2], *(1,) * (self._rank(path, len(space)) - len(space)), *space)

    def from_torch(self, path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return a PyTorch tensor in our layout, or None if it cannot have ``shape``."""
        if path[-1] != "kernel":
            return array if array.shape == shape else None
        if array.ndim < 2:
            return None
        array = np.moveaxis(array, (0, 1), self._channel_axes(path))
        *space, inputs, outputs = shape
        if array.shape[-2:] != (inputs, outputs):
            return None
        if [n for n in array.shape[:-2] if n != 1] != [n for n in space if n != 1]:
            return None
        return array.reshape(shape)

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
