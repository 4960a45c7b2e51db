"""State of a training run: what one update passes to the next."""

import hashlib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

# The dropout of update s uses ``fold_in(key(seed), s)``; no step reaches this number.
_INIT_STREAM = 2**32 - 1


class NonFiniteError(ValueError):
    """A loss, a gradient norm or a state holds NaN or infinity after the update ``step``."""

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message)
        self.step = step


class TrainState(flax.struct.PyTreeNode):
    """The whole state of a run. Its shapes do not depend on the number of devices.

    Attributes:
        step: int32 scalar, the number of completed updates.
        params: the model's parameters.
        batch_stats: the model's running BatchNorm statistics; an empty dict for a model without any.
        opt_state: the state of the optax transformation.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that ``model.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    clip_shape: tuple[int, ...],
    variables: Mapping[str, Any] | None = None,
) -> TrainState:
    """Make the state before the first update, on the default device.

    Args:
        model: takes clips ``(b, t, h, w, c)`` and ``train``.
        optimizer: any optax transformation.
        seed: seed of the initial parameters.
        clip_shape: ``(t, h, w, c)`` of one clip.
        variables: initial ``{"params", "batch_stats"}`` in place of random ones; their dtypes are kept.

    Raises:
        ValueError: if ``variables`` lack a tensor, or hold one that the model lacks or has in another shape.
    """

    def init(key: jax.Array) -> dict[str, Any]:
        key = jax.random.fold_in(key, jnp.uint32(_INIT_STREAM))
        return dict(model.init(key, jnp.zeros((1, *clip_shape), jnp.uint8), train=False))

    def complete(variables: Mapping[str, Any]) -> TrainState:
        params = variables["params"]
        return TrainState(jnp.int32(0), params, variables.get("batch_stats", {}), optimizer.init(params))

    # Compiled: initialising a network operation by operation takes minutes. The key is an argument, so that all seeds
    # share one entry of the compilation cache.
    key = jax.random.key(seed)
    if variables is None:
        return jax.jit(lambda key: complete(init(key)))(key)
    variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    drawn = jax.eval_shape(init, key)
    expected = {name: leaf.shape for name, leaf in named_leaves({"batch_stats": {}, **drawn})}
    given = {name: np.shape(leaf) for name, leaf in named_leaves(variables)}
    if differences := describe_differences(given, expected):
        raise ValueError(
            f"the initial variables do not fit the model: {differences}; convert them for this model "
            "(motion_jax.load_torch(source, model, init=...) fills what a file lacks)"
        )
    return jax.jit(complete)(variables)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return the leaves of a tree with their names, ``params/conv1/kernel``, in the order of ``jax.tree.leaves``."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]


def describe_differences(given: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return one line that names the first three differences of two tables of named leaves; ``""`` for none."""
    lines = [f"{name} is missing" for name in expected if name not in given]
    lines += [f"{name} is unknown" for name in given if name not in expected]
    both = [name for name in expected if name in given and given[name] != expected[name]]
    lines += [f"{name} is {given[name]} where {expected[name]} is expected" for name in both]
    return ", ".join(lines[:3]) + (f", and {len(lines) - 3} more" if len(lines) > 3 else "")


def fingerprint(tree: Any) -> str:
    """Return the SHA-256, in hex, of every leaf of a tree: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, leaf in named_leaves(tree):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
