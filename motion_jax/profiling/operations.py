"""What a network costs: operations in the papers' convention, by stage, from shapes alone; and XLA's own count.

The convention is the one that gives the figures printed for MotionSqueeze and SELFY:

- convolutions and matrix products count one operation per multiply-accumulate, those with padding included, and one
  more per output where there is a bias; a transposed convolution counts at every cell of its output, zeros included;
- batch normalisation counts 4 per element;
- local correlation counts 2 C - 1 per similarity of two vectors of C channels, cells outside the frame included;
- the products of attention and of all-pairs matching are matrix products, one operation per multiply-accumulate;
- the softmax of attention over n weights counts 3 n - 1, average pooling before the classifier 1 per pooled element;
- ReLU, max pooling, sums, resizing, L2 normalisation, choosing matches and the soft-argmax count nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from motion_jax.backbones import InceptionI3D, MobileNetV2, ResNet, inception_i3d, mobilenet_v2, resnet
from motion_jax.blocks import (
    CorrelationBlock,
    CorrespondenceProposal,
    LocalSelfAttention,
    MotionSqueeze,
    MultiHeadSelfAttention,
    NonLocal,
    Selfy,
)
from motion_jax.blocks.motion_squeeze import DIRECTIONS
from motion_jax.layers import BatchNorm, Conv
from motion_jax.models import VideoClassifier

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Operations:
    """Operations by kind, in the papers' convention.

    Attributes:
        conv_fc: of convolutions and fully connected layers.
        bn: of batch normalisation.
        correlation: of comparing positions with each other, and of gathering by the result.
        other: of softmax and average pooling.
    """

    conv_fc: int = 0
    bn: int = 0
    correlation: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Of all kinds."""
        return self.conv_fc + self.bn + self.correlation + self.other

    def __add__(self, more: "Operations") -> "Operations":
        return Operations(*(getattr(self, f.name) + getattr(more, f.name) for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What a network costs for one clip.

    Attributes:
        stages: operations by stage, in the order of computation: ``stem``, the backbone's own names such as ``res2``,
            ``<site>_motion`` for the motion block at a site, ``classifier``. Of a module that is no
            ``VideoClassifier``, its submodules by name, and its own name for what it does itself.
        parameters: how many there are, by the same stages.
    """

    stages: Mapping[str, Operations]
    parameters: Mapping[str, int]

    @property
    def operations(self) -> Operations:
        """Of all stages."""
        return sum(self.stages.values(), Operations())

    @property
    def gflops(self) -> float:
        """All operations, in units of 10^9: what the papers call FLOPs."""
        return self.operations.total / 1e9


def count(module: nn.Module, shape: Shape) -> Complexity:
    """Operations and parameters of a module for one clip, without computing or compiling anything.

    Layers are counted as they are called, in whatever network: ``Conv`` and ``BatchNorm`` of this library and of Flax,
    and ``flax.linen.Dense``. Beside its layers, the work of this library's motion blocks is counted, by the formulas
    below; that of other modules is not.

    Args:
        module: called as ``module(clips, train=...)``: a ``VideoClassifier``, a motion block, or a network of others.
        shape: of one clip or feature map, without the batch: (t, h, w, c).

    Source: the FLOPs of MotionSqueeze's supplement, Tables 1 and 2, and SELFY's supplement, Tables 3a and 3g.

    >>> from motion_jax.layers import Conv
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, *, train):
    ...         return BatchNorm()(Conv(16, (3, 3), padding=(1, 1))(x), train=train)
    >>> count(Net(), (8, 10, 10, 4)).operations
    Operations(conv_fc=460800, bn=51200, correlation=0, other=0)
    """
    stages: dict[str, Operations] = {}

    def counting(call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext) -> Any:
        result = call(*arguments, **keywords)
        if context.method_name == "__call__" and (found := _own_operations(context.module, arguments, result)):
            stage = _stage(module, context.module.path)
            stages[stage] = stages.get(stage, Operations()) + found
        return result

    with nn.intercept_methods(counting):
        variables = _abstract_variables(module, shape)
    parameters = dict.fromkeys(stages, 0)
    for path, leaf in flax.traverse_util.flatten_dict(variables["params"]).items():
        stage = _stage(module, path[:-1])
        parameters[stage] = parameters.get(stage, 0) + math.prod(leaf.shape)
    return Complexity(stages, parameters)


def xla_flops(module: nn.Module, shape: Shape) -> float:
    """What XLA's cost analysis says of the compiled forward pass for one clip, on the first device. It compiles.

    XLA counts a multiplication and an addition as two operations, and element-wise ones too, but no products with
    padding. It counts the body of a loop once, however often it runs: on a CPU that of depth-wise convolutions. And it
    counts the form that the device is given: on a CPU a product with a banded matrix, with its zeros.

    Args:
        module: as of ``count``.
        shape: of one clip, without the batch: (t, h, w, c).
    """
    forward = jax.jit(lambda variables, clips: module.apply(variables, clips, train=False))
    compiled = forward.lower(_abstract_variables(module, shape), _abstract_clip(shape)).compile()
    return compiled.cost_analysis()["flops"]


def _abstract_clip(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _abstract_variables(module: nn.Module, shape: Shape) -> dict[str, Any]:
    return jax.eval_shape(lambda clips: module.init(jax.random.key(0), clips, train=False), _abstract_clip(shape))


def _own_operations(module: nn.Module, arguments: tuple, result: Any) -> Operations | None:
    """What a call of a module costs beyond the calls of its submodules; None where that is nothing."""
    if isinstance(module, Conv | nn.Conv | nn.Dense):
        parameters = module.variables["params"]
        per_output = math.prod(parameters["kernel"].shape[:-1]) + ("bias" in parameters)
        return Operations(conv_fc=result.size * per_output)
    if isinstance(module, BatchNorm | nn.BatchNorm):
        return Operations(bn=4 * result.size)
    if isinstance(module.parent, VideoClassifier) and module.name == "backbone":
        *_, last = result.values()
        return Operations(other=last.size)  # averaged over space
    formula = BLOCKS.get(type(module))
    return formula(module, arguments[0].shape) if formula else None


def _softmax(vectors: int, length: int) -> int:
    return vectors * (3 * length - 1)


def _motion_squeeze(block: MotionSqueeze, shape: Shape) -> Operations:
    batch, frames, height, width, features = shape
    channels = features if block.reduction is None else block.reduction
    sources = batch * (frames - 1) * len(DIRECTIONS[block.directions]) * height * width
    return Operations(correlation=sources * (2 * block.radius + 1) ** 2 * (2 * channels - 1))


def _upsampled(block: Selfy | LocalSelfAttention, frames: int, size: Shape, features: int) -> Operations:
    """Products of the transposed convolution at the cells it leaves zero, which are not computed here, and the BN."""
    small = math.prod(-(-side // block.stride) for side in size)
    full = math.prod(size)
    return Operations(
        conv_fc=frames * (full - small) * features * block.integration_width, bn=4 * frames * full * features
    )


def _selfy(block: Selfy, shape: Shape) -> Operations:
    batch, frames, height, width, features = shape
    length, *sides = block.window
    size = (block.enlarge * height, block.enlarge * width)
    window = (length if block.offsets is None else len(block.offsets)) * math.prod(sides)
    positions = batch * frames * math.prod(-(-side // block.stride) for side in size)
    attends = block.similarity == "embedded_gaussian"
    return _upsampled(block, batch * frames, size, features) + Operations(
        correlation=positions * window * (2 * block.channels - 1),
        other=_softmax(positions, window) if attends else 0,
    )


def _local_self_attention(block: LocalSelfAttention, shape: Shape) -> Operations:
    batch, frames, height, width, features = shape
    window = math.prod(block.window)
    positions = batch * frames * math.prod(-(-side // block.stride) for side in (height, width))
    return _upsampled(block, batch * frames, (height, width), features) + Operations(
        # Query and key, weights and value, query and the embeddings of the distances along the axes.
        correlation=positions * block.channels * (2 * window + sum(block.window)),
        other=_softmax(positions, window),
    )


def _non_local(block: NonLocal, shape: Shape) -> Operations:
    batch, *space, features = shape
    positions = math.prod(space)
    channels = max(features // 2, 1) if block.channels is None else block.channels
    return Operations(correlation=2 * batch * positions**2 * channels, other=_softmax(batch * positions, positions))


def _multi_head_self_attention(block: MultiHeadSelfAttention, shape: Shape) -> Operations:
    batch, *space, _ = shape
    positions = math.prod(space)
    embeddings = sum(2 * distance + 1 for distance in block.distances)
    width = block.heads * block.head_channels
    return Operations(
        correlation=batch * positions * width * (2 * positions + embeddings),
        other=_softmax(batch * positions * block.heads, positions),
    )


def _correspondence_proposal(block: CorrespondenceProposal, shape: Shape) -> Operations:
    batch, frames, height, width, features = shape
    if frames == 1:
        return Operations()
    return Operations(correlation=batch * (frames * height * width) ** 2 * features)


def _correlation_block(block: CorrelationBlock, shape: Shape) -> Operations:
    batch, frames, height, width, features = shape
    channels, groups = block.compared(features)
    cells = batch * frames * height * width * (2 * block.radius + 1) ** 2
    # Per similarity 2 c - 1 for its c channels, and c more for their weights.
    return Operations(correlation=cells * (3 * channels - groups))


# What each motion block does beside its layers, from its input's shape (b, t, h, w, c).
BLOCKS: dict[type[nn.Module], Callable[[Any, Shape], Operations]] = {
    CorrelationBlock: _correlation_block,
    CorrespondenceProposal: _correspondence_proposal,
    LocalSelfAttention: _local_self_attention,
    MotionSqueeze: _motion_squeeze,
    MultiHeadSelfAttention: _multi_head_self_attention,
    NonLocal: _non_local,
    Selfy: _selfy,
}


def _stage(module: nn.Module, path: Shape) -> str:
    """The stage a submodule belongs to, by its path in ``module``."""
    if not path:
        return type(module).__name__
    if not isinstance(module, VideoClassifier) or path[0] != "backbone":
        return path[0]
    if len(path) == 1:
        return "classifier"  # the average of what it classifies
    child = path[1]
    if child.startswith("blocks_"):
        return f"{child.removeprefix('blocks_')}_motion"
    names = _stage_names(module.backbone)
    return names.get(child, "stem") if names else child


def _stage_names(backbone: nn.Module) -> dict[str, str]:
    """The stages that submodules of a backbone of this library belong to; those not named are its stem."""
    match backbone:
        case ResNet():
            _, *sites = resnet.SITES
            sizes = enumerate(zip(sites, backbone.stage_sizes, strict=True), start=1)
            return {f"layer{number}_{index}": site for number, (site, size) in sizes for index in range(size)}
        case MobileNetV2():
            groups = ((site, size) for site, rows in mobilenet_v2.INVERTED_RESIDUALS.items() for _, _, size, _ in rows)
            sites = [site for site, size in groups for _ in range(size)]
            names = {f"features_{number}": site for number, site in enumerate(sites, start=1)}
            return {**names, "head_conv": sites[-1], "head_bn": sites[-1]}
        case InceptionI3D():
            return {name: site for site, (name, _) in inception_i3d.INCEPTION_BLOCKS.items()}
    return {}
