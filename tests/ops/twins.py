"""The ops once more, slowly: loops over positions in NumPy, written from the papers' formulas."""

import itertools

import numpy as np


def temporal_shift(x, fold_div):
    """Frame t takes a share of channels from t + 1, the next share from t - 1."""
    k = x.shape[-1] // fold_div
    y = x.copy()
    for t in range(x.shape[1]):
        y[:, t, ..., :k] = x[:, t + 1, ..., :k] if t + 1 < x.shape[1] else 0
        y[:, t, ..., k : 2 * k] = x[:, t - 1, ..., k : 2 * k] if t > 0 else 0
    return y


def l2_normalize(x, epsilon=1e-6):
    """Unit vectors along the last axis."""
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + epsilon)


def local_correlation(source, target, radius, dilation=1):
    """Inner products, displacement by displacement."""
    n, h, w, _ = source.shape
    p = 2 * radius + 1
    scores = np.zeros((n, h, w, p, p))
    for y, x, i, j in itertools.product(range(h), range(w), range(p), range(p)):
        v, u = y + (i - radius) * dilation, x + (j - radius) * dilation
        if 0 <= v < h and 0 <= u < w:
            scores[:, y, x, i, j] = (source[:, y, x] * target[:, v, u]).sum(-1)
    return scores


def kernel_soft_argmax(scores, sigma, temperature):
    """Position by position, the expectation under the softmax."""
    n, h, w, p, _ = scores.shape
    radius = p // 2
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    result = np.zeros((n, h, w, 2))
    for position in np.ndindex(n, h, w):
        s = scores[position]
        z = temperature * s
        if sigma is not None:
            best_y, best_x = np.unravel_index(s.argmax(), s.shape)
            z = z * np.exp(-((dy + radius - best_y) ** 2 + (dx + radius - best_x) ** 2) / (2 * sigma**2))
        weights = np.exp(z - z.max())
        weights /= weights.sum()
        result[position] = (weights * dx).sum() / radius, (weights * dy).sum() / radius
    return result


def match(source, target, radius, sigma, temperature, dilation=1):
    """Rectified correlation, its maximum, and the displacement."""
    scores = np.maximum(local_correlation(source, target, radius, dilation), 0)
    return kernel_soft_argmax(scores, sigma, temperature), scores.max((-1, -2))[..., None]


def self_similarity(x, window, offsets=None, other=None, temporal_padding="zero"):
    """Inner products, neighbour by neighbour."""
    b, t, h, w, _ = x.shape
    length, u_side, v_side = window
    other = x if other is None else other
    offsets = range(-(length // 2), length // 2 + 1) if offsets is None else offsets
    result = np.zeros((b, t, h, w, len(offsets), u_side, v_side))
    for frame, y, c, (i, offset), u, v in itertools.product(
        range(t), range(h), range(w), enumerate(offsets), range(u_side), range(v_side)
    ):
        source = frame
        if temporal_padding == "edge":  # walk to the nearest frame that has a partner
            having = [f for f in range(t) if 0 <= f + offset < t]
            source = min(having, key=lambda f: abs(f - frame)) if having else frame
        cell = source + offset, y + u - u_side // 2, c + v - v_side // 2
        if all(0 <= k < size for k, size in zip(cell, (t, h, w), strict=True)):
            result[:, frame, y, c, i, u, v] = (x[:, source, y, c] * other[:, cell[0], cell[1], cell[2]]).sum(-1)
    return result


def relative_scores(query, table):
    """One pair of positions after the other."""
    n, reach = query.shape[-2], table.shape[0] // 2
    result = np.zeros((*query.shape[:-1], n))
    for i, j in itertools.product(range(n), range(n)):
        result[..., i, j] = query[..., i, :] @ table[reach + max(-reach, min(reach, j - i))]
    return result
