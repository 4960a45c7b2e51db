"""Causal networks one frame at a time: state in, state out.

The state holds what the network remembers: for each temporal shift an eighth of the channels of the frame before, for a
motion block the reduced features of the frames that it compares with.

>>> import jax, jax.numpy as jnp, motion_jax
>>> model = motion_jax.build_model("tsm_r18", num_classes=5, width=8, causal=True)
>>> frames = jnp.zeros((2, 64, 64, 3), jnp.uint8)  # one frame of two streams
>>> variables = jax.jit(model.init, static_argnames="train")(jax.random.key(0), frames[:, None], train=False)
>>> state = motion_jax.streaming.init(model, variables, batch=2, size=(64, 64))
>>> logits, state = motion_jax.streaming.step(model, variables, state, frames)
>>> logits.shape
(2, 5)
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from motion_jax.layers import STREAM
from motion_jax.models import VideoClassifier

State = Mapping[str, Any]


def init(model: VideoClassifier, variables: Mapping[str, Any], *, batch: int = 1, size: tuple[int, int]) -> State:
    """Return the state before the first frame.

    Args:
        model: a causal model, as from ``build_model(..., causal=True)``.
        variables: its variables; only their shapes and dtypes count.
        batch: number of streams, which advance together.
        size: height and width of the frames.

    Returns:
        a tree of zeros, of at most four axes each; empty for TSN.

    Raises:
        ValueError: if the model is not causal.
    """
    _check_causal(model)
    frame = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    _, state = jax.eval_shape(functools.partial(_apply, model, method=None), variables, {}, frame)
    return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), state)


def step(
    model: VideoClassifier, variables: Mapping[str, Any], state: State, frame: Num[Array, "b h w 3"]
) -> tuple[Float[Array, "b k"], State]:
    """Return the logits of the next frame of each stream, and the state after it.

    They equal the ``frame_logits`` of the model on the whole clip. Compiled once per model and shape.

    Args:
        model: a causal model.
        variables: its variables.
        state: from ``init`` or the step before; it stays valid.
        frame: uint8 in 0..255 or normalised floats.

    Raises:
        ValueError: if the model is not causal, or the state is of another batch or size.
    """
    _check_causal(model)
    return _logits(model, variables, state, frame)


def features(
    model: VideoClassifier, variables: Mapping[str, Any], state: State, frame: Num[Array, "b h w 3"]
) -> tuple[Float[Array, "b k"], dict, State]:
    """Return the logits, the intermediate results (see ``VideoClassifier.features``) and the state after a frame.

    The intermediate results have one frame; ``displacement`` is that from the frame before.

    Raises:
        ValueError: if the model is not causal, or the state is of another batch or size.
    """
    _check_causal(model)
    (logits, aux), state = _features(model, variables, state, frame)
    return logits, aux, state


def _apply(
    model: VideoClassifier, variables: Mapping[str, Any], state: State, frame: jax.Array, *, method: str | None
) -> tuple[Any, State]:
    given = {**variables, STREAM: state} if state else variables
    result, changed = model.apply(given, frame[:, None], train=False, method=method, mutable=[STREAM])
    return result, changed.get(STREAM, {})


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: VideoClassifier, variables: Mapping[str, Any], state: State, frame: jax.Array) -> tuple[Any, State]:
    return _apply(model, variables, state, frame, method=None)


@functools.partial(jax.jit, static_argnums=0)
def _features(
    model: VideoClassifier, variables: Mapping[str, Any], state: State, frame: jax.Array
) -> tuple[Any, State]:
    return _apply(model, variables, state, frame, method="features")


def _check_causal(model: VideoClassifier) -> None:
    if not getattr(model.backbone, "causal", False):
        raise ValueError(
            f"this {type(model.backbone).__name__} looks at later frames; a stream needs "
            "motion_jax.build_model(..., causal=True)"
        )
