"""Operations of a network in the papers' convention, by stage, from shapes alone; and XLA's own count.

The convention reproduces the figures that MotionSqueeze and SELFY print:

- convolutions and matrix products count one operation per multiply-accumulate, with those on padding, and one more per
  output where there is a bias; a transposed convolution counts every cell of its output, zeros included;
- batch normalisation counts 4 per element;
- local correlation counts 2 C - 1 per similarity of two vectors of C channels, with cells outside the frame;
- the products of attention and of all-pairs matching count as matrix products;
- a softmax over n values counts 3 n - 1, average pooling before the classifier 1 per pooled element;
- ReLU, max pooling, sums, resizing, L2 normalisation, choosing matches and the soft-argmax count 0.

A motion block declares what it costs beyond its layers (``motion_jax.blocks.protocol``). The matrix products and
convolutions of a block that does not are counted in its traced call, and its stage is marked as traced.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.extend
import jax.numpy as jnp

from motion_jax.blocks.protocol import Operations, Shape, declared
from motion_jax.layers import BatchNorm, Conv
from motion_jax.models import VideoClassifier

LAYERS = (Conv, nn.Conv, nn.Dense, BatchNorm, nn.BatchNorm)


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Operations and parameters of a network for one clip.

    Attributes:
        stages: operations by stage, in the order of computation: ``stem``, the backbone's own names such as ``res2``,
            ``<site>_motion`` for the motion block at a site, ``classifier``. For a module that is no
            ``VideoClassifier``: its submodules by name, and its class name for its own operations.
        parameters: number of parameters, by the same stages.
        traced: stages with a motion block that declares no cost. Their figures hold the products of the traced call,
            without any softmax.
    """

    stages: Mapping[str, Operations]
    parameters: Mapping[str, int]
    traced: tuple[str, ...] = ()

    @property
    def operations(self) -> Operations:
        """Sum over the stages."""
        return sum(self.stages.values(), Operations())

    @property
    def gflops(self) -> float:
        """Operations of all kinds and stages, in units of 10^9."""
        return self.operations.total / 1e9


def count(module: nn.Module, shape: Shape) -> Complexity:
    """Count operations and parameters of a module for one clip, without computing or compiling anything.

    Counts layers as they are called: ``Conv`` and ``BatchNorm`` of this library and of Flax, and ``flax.linen.Dense``.
    Adds what motion blocks declare. Matrix products and convolutions of all other code are counted in its trace: those
    of a motion block that declares no cost under its stage, those of a module that is no ``VideoClassifier`` under
    its class name.

    Args:
        module: called as ``module(clips, train=...)``: a ``VideoClassifier``, a motion block, or any other network.
        shape: shape of one clip or feature map, without the batch: (t, h, w, c).

    Source: the FLOPs of MotionSqueeze's supplement, Tables 1 and 2, and SELFY's supplement, Tables 3a and 3g.

    >>> from motion_jax.layers import Conv
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, *, train):
    ...         return BatchNorm()(Conv(16, (3, 3), padding=(1, 1))(x), train=train)
    >>> count(Net(), (8, 10, 10, 4)).operations
    Operations(conv_fc=460800, bn=51200, correlation=0, other=0)
    """
    stages: dict[str, Operations] = collections.defaultdict(Operations)
    undeclared: list[tuple[nn.Module, tuple[str, ...], Shape]] = []
    running: list[tuple[str, ...]] = []

    def counting(call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext) -> Any:
        # A module has no path before it is bound, when its fields are checked.
        if context.method_name != "__call__":
            return call(*arguments, **keywords)
        own, path = context.module, context.module.path
        # A call of ``super().__call__`` is part of the call that is counted.
        if path in running[-1:]:
            return call(*arguments, **keywords)
        running.append(path)
        result = call(*arguments, **keywords)
        running.pop()
        if found := _own_operations(own, arguments, result):
            stages[_stage(module, path)] += found
        elif _is_block(own) or (not path and not isinstance(own, VideoClassifier)):
            undeclared.append((own.clone(parent=None, name=None), path, arguments[0].shape))
            if path:
                stages[_stage(module, path)] += Operations()  # keeps the order of computation
        return result

    with nn.intercept_methods(counting):
        variables = _abstract_variables(module, shape)
    traced = []
    for block, path, features in undeclared:
        found, stage = _traced_products(block, _at(variables, path), features), _stage(module, path)
        if path or found.total:
            stages[stage] += found
            traced.append(stage)
    parameters = collections.Counter(dict.fromkeys(stages, 0))
    for path, leaf in flax.traverse_util.flatten_dict(variables.get("params", {})).items():
        parameters[_stage(module, path[:-1])] += math.prod(leaf.shape)
    return Complexity(dict(stages), dict(parameters), tuple(traced))


def xla_flops(module: nn.Module, shape: Shape) -> float:
    """Return XLA's count for the compiled forward pass on one clip, on the first device. This compiles.

    XLA counts a multiplication and an addition as two operations, counts element-wise operations, and leaves out
    products with padding. It counts the body of a loop once, for any number of rounds: on a CPU that of depth-wise
    convolutions. It counts the form that the device computes: on a CPU a product with a banded matrix, with its zeros.

    Args:
        module: see ``count``.
        shape: shape of one clip, without the batch: (t, h, w, c).
    """
    forward = jax.jit(lambda variables, clips: module.apply(variables, clips, train=False))
    compiled = forward.lower(_abstract_variables(module, shape), _abstract((1, *shape))).compile()
    return compiled.cost_analysis()["flops"]


def _abstract(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _abstract_variables(module: nn.Module, shape: Shape) -> dict[str, Any]:
    return jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), _abstract((1, *shape)))


def _at(variables: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the variables of the submodule at ``path``."""
    found = {}
    for collection, values in variables.items():
        for name in path:
            values = values.get(name, {})
        found[collection] = values
    return found


def _is_block(module: nn.Module) -> bool:
    """Whether a module is the motion block of a ``VideoClassifier``."""
    return len(module.path) == 2 and module.path[0] == "backbone" and module.name.startswith("blocks_")


def _own_operations(module: nn.Module, arguments: tuple, result: Any) -> Operations | None:
    """Return the cost of a call beyond the calls of its submodules, or None if it is 0 or undeclared."""
    if isinstance(module, LAYERS):
        parameters = module.variables.get("params", {})
        if "kernel" not in parameters:
            return Operations(bn=4 * result.size)
        per_output = math.prod(parameters["kernel"].shape[:-1]) + ("bias" in parameters)
        return Operations(conv_fc=result.size * per_output)
    if isinstance(module.parent, VideoClassifier) and module.name == "backbone":
        *_, last = result.values()
        return Operations(other=last.size)  # averaged over space
    formula = declared(module, "operations")
    return formula(arguments[0].shape) if formula else None


def _traced_products(block: nn.Module, variables: Mapping[str, Any], shape: Shape) -> Operations:
    """Count the products in the jaxpr of a call, without those of its layers and of blocks that declare their cost."""

    def without(call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext) -> Any:
        result = call(*arguments, **keywords)
        counted = isinstance(context.module, LAYERS) or declared(context.module, "operations")
        if not counted or context.method_name != "__call__":
            return result
        # This depends on the arguments but not on the result, whose operations become dead code.
        total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(arguments))
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, total), result)

    with nn.intercept_methods(without):
        traced = jax.make_jaxpr(lambda v, x: block.apply(v, x, train=False))(variables, _abstract(shape))
    return _products(traced.jaxpr)


def _products(jaxpr: jax.extend.core.Jaxpr) -> Operations:
    """Count multiply-accumulates of matrix products and convolutions that a result depends on.

    The body of a scan counts once per round, of a while loop once. Of the branches of a conditional the costliest
    counts.
    """
    total, needed = Operations(), {id(value) for value in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(map(id, equation.outvars)):
            continue
        needed |= set(map(id, equation.invars))
        total += _products_of(equation)
    return total


def _products_of(equation: jax.extend.core.JaxprEqn) -> Operations:
    name, params = equation.primitive.name, equation.params
    size = math.prod(equation.outvars[0].aval.shape)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return Operations(correlation=size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        kernel, features = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec[0]
        return Operations(conv_fc=size * math.prod(kernel) // kernel[features])
    inner = [_products(jaxpr) for jaxpr in _jaxprs(params.values())]
    if name == "cond":
        return max(inner, key=lambda operations: operations.total)
    rounds = params["length"] if name == "scan" else 1
    return sum(rounds * inner, Operations())


def _jaxprs(values: Iterable[Any]) -> list[jax.extend.core.Jaxpr]:
    """Return the jaxprs among the parameters of an equation."""
    flat = [each for value in values for each in (value if isinstance(value, tuple | list) else (value,))]
    flat = [getattr(each, "jaxpr", each) for each in flat]
    return [each for each in flat if isinstance(each, jax.extend.core.Jaxpr)]


def _stage(module: nn.Module, path: Shape) -> str:
    """Return the stage of the submodule at ``path`` in ``module``."""
    if not path:
        return type(module).__name__
    if not isinstance(module, VideoClassifier) or path[0] != "backbone":
        return path[0]
    if len(path) == 1:
        return "classifier"  # the average of what it classifies
    child = path[1]
    if child.startswith("blocks_"):
        return f"{child.removeprefix('blocks_')}_motion"
    stages = declared(module.backbone, "stage_of", dict)()
    return stages.get(child, "stem") if stages else child
