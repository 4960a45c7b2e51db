"""The temporal shift of TSM."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def temporal_shift(
    x: Shaped[Array, "b t *space c"],
    *,
    fold_div: int,
    causal: bool = False,
    previous: Shaped[Array, "b 1 *space k"] | None = None,
) -> Shaped[Array, "b t *space c"]:
    """Swap part of the channels with the neighbouring frames.

    With ``k = c // fold_div``, frame ``t`` takes channels ``[0, k)`` from frame ``t + 1`` and ``[k, 2k)`` from frame
    ``t - 1``; the rest stay. Frames outside the clip read as zero. The dtype of ``x`` is kept.

    The causal form takes channels ``[0, k)`` from frame ``t - 1``; the rest stay.

    Args:
        x: features of whole clips; time must not be folded into the batch.
        fold_div: the share of channels moved each way is ``1 / fold_div``.
        causal: shift from the past only.
        previous: channels ``[0, k)`` of the frame before the clip, for the causal form; None for zeros.

    Raises:
        ValueError: if no channel would move, or more would move than there are.

    Source: MotionSqueeze, tsm_util.py, ``tsm`` with version "zero" (there NCHW, time in the batch); the causal form is
    TSM's for online recognition (section 4.3; the TSM repository's online_demo).

    >>> x = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1) * jnp.ones((1, 1, 1, 1, 4))
    >>> temporal_shift(x, fold_div=4)[0, :, 0, 0].tolist()
    [[2.0, 0.0, 1.0, 1.0], [3.0, 1.0, 2.0, 2.0], [0.0, 2.0, 3.0, 3.0]]
    """
    channels = x.shape[-1]
    if fold_div < 2 or channels < fold_div:
        raise ValueError(
            f"temporal_shift: {channels} channels with fold_div={fold_div} would move no channel or too many; "
            f"fold_div must be in 2..{channels}"
        )
    moved = channels // fold_div
    rest = [(0, 0)] * (x.ndim - 2)
    if causal:
        if previous is None:
            previous = jnp.zeros((x.shape[0], 1, *x.shape[2:-1], moved), x.dtype)
        shifted = jnp.concatenate([previous, x[:, :-1, ..., :moved]], axis=1)
        return jnp.concatenate([shifted, x[..., moved:]], axis=-1)
    from_next = jnp.pad(x[:, 1:, ..., :moved], [(0, 0), (0, 1), *rest])
    from_previous = jnp.pad(x[:, :-1, ..., moved : 2 * moved], [(0, 0), (1, 0), *rest])
    return jnp.concatenate([from_next, from_previous, x[..., 2 * moved :]], axis=-1)
