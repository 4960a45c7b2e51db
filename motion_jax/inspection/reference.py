"""Slow references of the operations, of layers in evaluation and of both motion blocks: NumPy in float64.

Devices, kernels and blocks are tested against these functions. They use no JAX, so that they share neither compiler nor
formulation with the code under test. Their arguments are those of ``motion_jax.ops``; arrays may have any dtype.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def temporal_shift(x: np.ndarray, *, fold_div: int) -> np.ndarray:
    """Shift channels of (b, t, *space, c) in time as TSM does: one part from the next frame, one from the previous."""
    moved = x.shape[-1] // fold_div
    y = np.array(x, np.float64)
    y[:, :, ..., : 2 * moved] = 0
    y[:, :-1, ..., :moved] = x[:, 1:, ..., :moved]
    y[:, 1:, ..., moved : 2 * moved] = x[:, :-1, ..., moved : 2 * moved]
    return y


def l2_normalize(x: np.ndarray, *, epsilon: float = 1e-6) -> np.ndarray:
    """Scale vectors along the last axis to unit length."""
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + epsilon)


def relu(x: np.ndarray) -> np.ndarray:
    """Set negative values to zero."""
    return np.maximum(x, 0)


def softmax(x: np.ndarray, *, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Compute positive weights that sum to one over the axes, or over all of ``x``."""
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def local_correlation(source: np.ndarray, target: np.ndarray, *, radius: int, dilation: int = 1) -> np.ndarray:
    """Compute products (n, h, w, p, p) of each position with a window around it in the other map, dy then dx."""
    side = 2 * radius + 1
    return _window_products(source, target, window=(side, side), dilation=dilation)


def kernel_soft_argmax(scores: np.ndarray, *, sigma: float | None, temperature: float) -> np.ndarray:
    """Compute the expected (dx, dy) / radius of scores (n, h, w, p, p); a ``sigma`` of None omits the Gaussian."""
    *positions, side, _ = scores.shape
    radius = side // 2
    offset = np.arange(side)
    logits = temperature * np.asarray(scores, np.float64)
    if sigma is not None:
        best = scores.reshape(*positions, side**2).argmax(-1)[..., None, None]
        distance = (offset[:, None] - best // side) ** 2 + (offset[None, :] - best % side) ** 2
        logits = logits * np.exp(-distance / (2 * sigma**2))
    weights = softmax(logits, axis=(-2, -1))
    dy, dx = ((weights.sum(axis) * (offset - radius)).sum(-1) / radius for axis in (-1, -2))
    return np.stack([dx, dy], axis=-1)


def match(
    source: np.ndarray, target: np.ndarray, *, radius: int, sigma: float | None, temperature: float, dilation: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Compute displacement (n, h, w, 2) and confidence (n, h, w, 1) from rectified correlations."""
    scores = relu(local_correlation(source, target, radius=radius, dilation=dilation))
    return kernel_soft_argmax(scores, sigma=sigma, temperature=temperature), scores.max((-2, -1))[..., None]


def self_similarity(
    x: np.ndarray,
    other: np.ndarray | None = None,
    *,
    window: tuple[int, int, int],
    offsets: Sequence[int] | None = None,
    temporal_padding: str = "zero",
) -> np.ndarray:
    """Compute products (b, t, h, w, l, u, v) with a window in space and time, one pair of frames at a time."""
    other = x if other is None else other
    length, *space = window
    offsets = range(-(length // 2), length // 2 + 1) if offsets is None else offsets
    frames = range(x.shape[1])
    result = np.zeros((*x.shape[:-1], len(offsets), *space))
    for (index, offset), frame in itertools.product(enumerate(offsets), frames):
        with_partner = [f for f in frames if f + offset in frames]
        source = frame
        if temporal_padding == "edge" and with_partner:
            source = min(with_partner, key=lambda f, frame=frame: abs(f - frame))
        target = source + offset
        if temporal_padding == "replicate":
            target = min(frames, key=lambda f, target=target: abs(f - target))
        if target in frames:
            result[:, frame, :, :, index] = _window_products(x[:, source], other[:, target], window=space)
    return result


def relative_scores(query: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Compute products (*lead, n, n) of each query with the embedding of its clipped distance to each position."""
    n, reach = query.shape[-2], table.shape[0] // 2
    result = np.zeros((*query.shape[:-1], n))
    for i, j in itertools.product(range(n), range(n)):
        result[..., i, j] = np.asarray(query[..., i, :], np.float64) @ table[reach + max(-reach, min(reach, j - i))]
    return result


def convolution(
    x: np.ndarray, kernel: np.ndarray, *, strides: Sequence[int] | None = None, padding: Sequence[int] | None = None
) -> np.ndarray:
    """Convolve (*lead, *space, c) with (*window, c, d), or (*window, 1, c) depthwise, one kernel cell at a time.

    Args:
        x: features; the leading axes are left alone.
        kernel: weights, as Flax keeps them.
        strides: cells between windows, per spatial axis; 1 by default.
        padding: zeros before and after, per spatial axis; half the window by default.
    """
    kernel = np.asarray(kernel, np.float64)
    window = kernel.shape[:-2]
    padding = [side // 2 for side in window] if padding is None else padding
    depthwise = kernel.shape[-2] == 1
    return sum(
        part * kernel[cell][0] if depthwise else np.tensordot(part, kernel[cell], 1)
        for cell, part in _window_cells(x, window, strides or [1] * len(window), [(p, p) for p in padding])
    )


def batch_norm(x: np.ndarray, *, mean: np.ndarray, var: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Normalise channels with running statistics, then scale and shift them."""
    mean, var, scale, bias = (np.asarray(leaf, np.float64) for leaf in (mean, var, scale, bias))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def max_pool(
    x: np.ndarray, *, window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Compute the maximum of each window of (*lead, *space, c), one window cell at a time."""
    parts = (part for _, part in _window_cells(x, window, strides, padding, fill=-np.inf))
    return functools.reduce(np.maximum, parts)


class Layers:
    """Convolution and BatchNorm in evaluation with the named variables of a block."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.params, self.stats = _as_float64(variables["params"]), _as_float64(variables["batch_stats"])

    def conv(self, x: np.ndarray, name: str, **options: Sequence[int]) -> np.ndarray:
        """Apply the convolution of this name; the options are those of :func:`convolution`."""
        return convolution(x, self.params[name]["kernel"], **options)

    def bn(self, x: np.ndarray, name: str) -> np.ndarray:
        """Normalise with the running statistics."""
        return batch_norm(x, **self.params[name], **self.stats[name])

    def conv_bn_relu(self, x: np.ndarray, conv: str, bn: str, **options: Sequence[int]) -> np.ndarray:
        """Apply convolution, BatchNorm and ReLU."""
        return relu(self.bn(self.conv(x, conv, **options), bn))


def motion_squeeze(
    variables: Mapping[str, Any], x: np.ndarray, *, radius: int, sigma: float, temperature: float
) -> np.ndarray:
    """Compute the published MotionSqueeze block in evaluation: reduction, matching, separable layers, sum."""
    layers = Layers(variables)
    y = l2_normalize(layers.conv_bn_relu(x, "reduction_conv", "reduction_bn"))
    pairs = [
        np.concatenate(match(y[:, t], y[:, t + 1], radius=radius, sigma=sigma, temperature=temperature), axis=-1)
        for t in range(x.shape[1] - 1)
    ]
    z = np.stack([*pairs, pairs[-1]], axis=1)
    for index in itertools.count(1):
        name = f"transform{index}"
        if f"{name}_depthwise" not in layers.params:
            return x + z
        for part in ("depthwise", "pointwise"):
            z = layers.conv_bn_relu(z, f"{name}_{part}", f"{name}_{part}_bn")


def selfy(variables: Mapping[str, Any], x: np.ndarray, *, window: tuple[int, int, int], stride: int) -> np.ndarray:
    """Compute the published SELFY block in evaluation: reduction, self-similarity, extraction, integration, sum."""
    layers = Layers(variables)
    y = l2_normalize(layers.conv_bn_relu(x, "downsample_conv", "downsample_bn", strides=(stride, stride)))
    z = self_similarity(y, window=window)[..., None]
    last = sum(name.startswith("extraction") and name.endswith("conv") for name in layers.params) - 1
    for index in range(last + 1):
        # Stride 2 while at least three cells remain; the last kernel covers the rest.
        strides = [2 if 0 < index < last and side >= 5 else 1 for side in z.shape[-3:-1]]
        padding = (0, 0) if index == last else (1, 1)
        z = layers.conv_bn_relu(z, f"extraction{index}_conv", f"extraction{index}_bn", strides=strides, padding=padding)
    z = np.moveaxis(z[..., 0, 0, :], 4, 2)  # (b, t, l, h, w, d)
    z = upsample(layers, integrate(layers, z), shape=x.shape, stride=stride)
    return relu(z + x)


def integrate(layers: Layers, z: np.ndarray) -> np.ndarray:
    """Apply SELFY's integration to (b, t, l, h, w, d): three layers for each l, then one for all together."""
    for index in range(3):
        z = layers.conv_bn_relu(z, f"integration{index}_conv", f"integration{index}_bn")
    z = np.concatenate(list(np.moveaxis(z, 2, 0)), axis=-1)
    return layers.conv_bn_relu(z, "integration3_conv", "integration3_bn")


def upsample(layers: Layers, z: np.ndarray, *, shape: tuple[int, ...], stride: int) -> np.ndarray:
    """Apply SELFY's last convolution and BatchNorm, with zeros inserted between the cells in space."""
    full = np.zeros(shape)
    full[:, :, ::stride, ::stride] = layers.conv(z, "upsample_conv")
    return layers.bn(full, "upsample_bn")


def slopes(
    f: Callable[..., float], arguments: Sequence[np.ndarray], *, directions: Sequence[np.ndarray], step: float = 1e-7
) -> np.ndarray:
    """Compute central differences of ``f`` along directions of each argument: (number of arguments, k).

    Args:
        f: function from float64 arrays to a number.
        arguments: float64 arrays at which to differentiate.
        directions: directions (k, *shape) for each argument.
        step: step size in both directions.
    """
    found = []
    for index, along in enumerate(directions):
        ends = (
            [
                f(*arguments[:index], arguments[index] + way * step * direction, *arguments[index + 1 :])
                for way in (1, -1)
            ]
            for direction in along
        )
        found.append([(after - before) / (2 * step) for after, before in ends])
    return np.array(found)


def _as_float64(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _as_float64(leaf) if isinstance(leaf, Mapping) else np.asarray(leaf, np.float64)
        for name, leaf in tree.items()
    }


def _window_products(source: np.ndarray, target: np.ndarray, *, window: Sequence[int], dilation: int = 1) -> np.ndarray:
    """Compute products (n, h, w, *window), displacement by displacement; they are 0 outside the map."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    n, height, width, _ = source.shape
    padded = np.pad(target, [(0, 0), *((dilation * (side // 2),) * 2 for side in window), (0, 0)])
    scores = np.zeros((n, height, width, *window))
    for i, j in np.ndindex(*window):
        row, column = dilation * i, dilation * j
        scores[..., i, j] = (source * padded[:, row : row + height, column : column + width]).sum(-1)
    return scores


def _window_cells(
    x: np.ndarray,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    fill: float = 0.0,
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield each cell of a window with its entry of every window over the padded (*lead, *space, c)."""
    lead = x.ndim - len(window) - 1
    x = np.pad(np.asarray(x, np.float64), [(0, 0)] * lead + [*padding, (0, 0)], constant_values=fill)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[lead:-1], window, strides, strict=True)]
    for cell in np.ndindex(*window):
        part = (slice(c, c + (n - 1) * s + 1, s) for c, n, s in zip(cell, counts, strides, strict=True))
        yield cell, x[..., *part, :]
