"""Slow references of the operations and of both motion blocks: NumPy in float64, displacement by displacement.

Devices and kernels are tested against these functions. They use no JAX, so that they share neither compiler nor
formulation with the code under test. Their arguments are those of ``motion_jax.ops``; arrays may have any dtype.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
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


def local_correlation(source: np.ndarray, target: np.ndarray, *, radius: int) -> np.ndarray:
    """Compute products (n, h, w, p, p) of each position with a window around it in the other map, dy then dx."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    n, height, width, _ = source.shape
    side = 2 * radius + 1
    scores = np.zeros((n, height, width, side, side))
    padded = np.pad(target, [(0, 0), (radius, radius), (radius, radius), (0, 0)])
    for i, j in itertools.product(range(side), range(side)):
        scores[..., i, j] = (source * padded[:, i : i + height, j : j + width]).sum(-1)
    return scores


def kernel_soft_argmax(scores: np.ndarray, *, sigma: float, temperature: float) -> np.ndarray:
    """Compute the expected (dx, dy) / radius of scores (n, h, w, p, p) under a Gaussian around their maximum."""
    *positions, side, _ = scores.shape
    radius = side // 2
    best = scores.reshape(*positions, -1).argmax(-1)[..., None, None]
    offset = np.arange(side)
    distance = (offset[:, None] - best // side) ** 2 + (offset[None, :] - best % side) ** 2
    logits = temperature * scores * np.exp(-distance / (2 * sigma**2))
    weights = np.exp(logits - logits.max((-2, -1), keepdims=True))
    weights /= weights.sum((-2, -1), keepdims=True)
    dy, dx = ((weights.sum(axis) * (offset - radius)).sum(-1) / radius for axis in (-1, -2))
    return np.stack([dx, dy], axis=-1)


def match(
    source: np.ndarray, target: np.ndarray, *, radius: int, sigma: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute displacement (n, h, w, 2) and confidence (n, h, w, 1) from rectified correlations."""
    scores = np.maximum(local_correlation(source, target, radius=radius), 0)
    return kernel_soft_argmax(scores, sigma=sigma, temperature=temperature), scores.max((-2, -1))[..., None]


def self_similarity(x: np.ndarray, *, window: tuple[int, int, int]) -> np.ndarray:
    """Compute products (b, t, h, w, l, u, v) with a window in space and time; they are 0 outside the clip."""
    x = np.asarray(x, np.float64)
    half = [side // 2 for side in window]
    padded = np.pad(x, [(0, 0), *((reach, reach) for reach in half), (0, 0)])
    result = np.zeros((*x.shape[:-1], *window))
    for cell in np.ndindex(*window):
        shifted = padded[:, *(slice(at, at + size) for at, size in zip(cell, x.shape[1:4], strict=True))]
        result[..., *cell] = (x * shifted).sum(-1)
    return result


def motion_squeeze(
    variables: Mapping[str, Any], x: np.ndarray, *, radius: int, sigma: float, temperature: float
) -> np.ndarray:
    """Compute the published MotionSqueeze block in evaluation: reduction, matching, separable layers, sum."""
    layers = _Layers(variables)
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
    layers = _Layers(variables)
    y = l2_normalize(layers.conv_bn_relu(x, "downsample_conv", "downsample_bn", strides=(stride, stride)))
    z = self_similarity(y, window=window)[..., None]
    last = sum(name.startswith("extraction") and name.endswith("conv") for name in layers.params) - 1
    for index in range(last + 1):
        # Stride 2 while at least three cells remain; the last kernel covers the rest.
        strides = [2 if 0 < index < last and side >= 5 else 1 for side in z.shape[-3:-1]]
        padding = (0, 0) if index == last else (1, 1)
        z = layers.conv_bn_relu(z, f"extraction{index}_conv", f"extraction{index}_bn", strides=strides, padding=padding)
    z = np.moveaxis(z[..., 0, 0, :], 4, 2)  # (b, t, l, h, w, d)
    for index in range(3):
        z = layers.conv_bn_relu(z, f"integration{index}_conv", f"integration{index}_bn")
    z = np.concatenate(list(np.moveaxis(z, 2, 0)), axis=-1)
    z = layers.conv_bn_relu(z, "integration3_conv", "integration3_bn")
    full = np.zeros(x.shape)
    full[:, :, ::stride, ::stride] = layers.conv(z, "upsample_conv")
    return np.maximum(layers.bn(full, "upsample_bn") + x, 0)


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


class _Layers:
    """Convolution and BatchNorm in evaluation with the named variables of a block."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.params, self.stats = (
            {
                layer: {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
                for layer, leaves in tree.items()
            }
            for tree in (variables["params"], variables["batch_stats"])
        )

    def conv(
        self, x: np.ndarray, name: str, *, strides: Sequence[int] = (1, 1), padding: Sequence[int] | None = None
    ) -> np.ndarray:
        """Convolve over the two axes before the channels, one kernel cell at a time; pad half the kernel by default."""
        kernel = self.params[name]["kernel"]
        sides = kernel.shape[:2]
        depthwise = kernel.shape[2] == 1 and x.shape[-1] > 1
        padding = [side // 2 for side in sides] if padding is None else padding
        x = np.pad(x, [(0, 0)] * (x.ndim - 3) + [(amount, amount) for amount in padding] + [(0, 0)])
        counts = [(n - side) // stride + 1 for n, side, stride in zip(x.shape[-3:-1], sides, strides, strict=True)]
        total = np.zeros((*x.shape[:-3], *counts, kernel.shape[-1]))
        for cell in np.ndindex(*sides):
            rows, columns = (
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(cell, counts, strides, strict=True)
            )
            part = x[..., rows, columns, :]
            total += part * kernel[cell][0] if depthwise else part @ kernel[cell]
        return total

    def bn(self, x: np.ndarray, name: str) -> np.ndarray:
        """Normalise with the running statistics."""
        params, stats = self.params[name], self.stats[name]
        return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]

    def conv_bn_relu(self, x: np.ndarray, conv: str, bn: str, **options: Any) -> np.ndarray:
        """Apply convolution, BatchNorm and ReLU."""
        return np.maximum(self.bn(self.conv(x, conv, **options), bn), 0)
