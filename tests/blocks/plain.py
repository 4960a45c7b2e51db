"""Layers once more, slowly, in NumPy and double precision, to write each block's formula from; and variables for it."""

import jax
import jax.numpy as jnp
import numpy as np


def variables_of(block, x, rng, *, signed=False):
    """Every parameter and statistic away from zero and one, so that no branch is silent."""
    shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), x)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if signed:
            return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) * 0.2, leaf.dtype)

    return {name: jax.tree.map(draw, shapes[name]) for name in ("params", "batch_stats")}


def jitted(block, variables, x):
    """The block's result in evaluation, and what it lets see."""
    y, sown = jax.jit(lambda v, x: block.apply(v, x, train=False, mutable=["intermediates"]))(variables, x)
    return y, sown.get("intermediates", {})


class Layers:
    """The layers of one block's variables, by name, in evaluation."""

    def __init__(self, variables):
        as_float64 = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)  # noqa: E731
        self.params, self.stats = as_float64(variables["params"]), as_float64(variables["batch_stats"])

    def conv(self, x, name, strides=None, padding=None):
        """Over the last axes before the channels, kernel cell by kernel cell."""
        kernel = self.params[name]["kernel"]
        *size, inputs, outputs = kernel.shape
        depthwise = inputs == 1 and x.shape[-1] == outputs != 1
        strides, padding = strides or (1,) * len(size), padding or (0,) * len(size)
        lead = x.ndim - len(size) - 1
        x = np.pad(x, [(0, 0)] * lead + [(p, p) for p in padding] + [(0, 0)])
        counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[lead:], size, strides, strict=False)]
        total = np.zeros((*x.shape[:lead], *counts, outputs))
        for cell in np.ndindex(*size):
            ends = [c + (n - 1) * s + 1 for c, n, s in zip(cell, counts, strides, strict=True)]
            part = x[(..., *(slice(*bounds) for bounds in zip(cell, ends, strides, strict=True)), slice(None))]
            total += part * kernel[cell][0] if depthwise else part @ kernel[cell]
        return total

    def bn(self, x, name):
        """With the running statistics."""
        p, s = self.params[name], self.stats[name]
        return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def conv_bn_relu(self, x, name, strides=None, padding=None):
        """A layer whose parts are called ``<name>_conv`` and ``<name>_bn``."""
        return relu(self.bn(self.conv(x, f"{name}_conv", strides, padding), f"{name}_bn"))

    def integrate(self, x):
        """SELFY's integration: (b, t, h, w, l, d), three layers for each l, then one for all together."""
        each = []
        for offset in range(x.shape[4]):
            y = x[:, :, :, :, offset]
            for index in range(3):
                y = self.conv_bn_relu(y, f"integration{index}", padding=(1, 1))
            each.append(y)
        return self.conv_bn_relu(np.concatenate(each, axis=-1), "integration3", padding=(1, 1))

    def upsample(self, x, shape, stride):
        """SELFY's upsampling: zeros everywhere but on every ``stride``-th cell."""
        full = np.zeros(shape)
        full[:, :, ::stride, ::stride] = self.conv(x, "upsample_conv")
        return self.bn(full, "upsample_bn")


def relu(x):
    """Negative values to zero."""
    return np.maximum(x, 0)


def softmax(x):
    """Over all of it."""
    weights = np.exp(x - x.max())
    return weights / weights.sum()
