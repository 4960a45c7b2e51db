"""The three PyTorch modules of the token goldens: their configs, weights and inputs, as tokens_RULES.json says."""

import functools
import hashlib
import json
import math

import jax
import numpy as np
from official import GOLDENS, generator

from motion_jax.blocks import TokenMotion

CASES = (
    "moss_cosine",
    "moss_dot",
    "moss_l3_w7",
    "moss_softmax",
    "opentau_gn",
    "opentau_zero",
    "rldx_default",
    "rldx_full",
    "rldx_layernorm",
)
# Compiles in half the time; the results do not depend on the quality of the code.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)
SIMILARITIES = {"cosine": "cosine", "dotproduct": "dot", "dotproduct_softmax": "dot_softmax"}


def case(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Return description and arrays of a golden."""
    with np.load(GOLDENS / f"tokens_{name}.npz") as file:
        return json.loads((GOLDENS / f"tokens_{name}.json").read_text()), dict(file)


def block_of(module: str, config: dict, **fields) -> TokenMotion:
    """Return our block for the arguments of an official module's constructor."""
    preset = {"moss": TokenMotion.moss, "rldx": TokenMotion.rldx, "opentau": TokenMotion.opentau}[module]
    given = {
        "features": config["d_out"],
        "hidden": config["d_hid"],
        "window": tuple(config["window"]),
        "extraction_width": config["ext_chnls"][0],
        "integration_widths": tuple(config["int_chnls"]),
        "similarity": SIMILARITIES[config.get("corr_func", "cosine")],
    }
    if module == "moss":
        given["encoders"] = config["n_encoders"]
    if "int_mode" in config:
        given["integration"] = config["int_mode"]
    if "use_layernorm" in config:
        given["norm"] = "group" if config["use_layernorm"] else "batch"
    if "zero_init_residual" in config:
        given["zero_start"] = config["zero_init_residual"]
    return preset(**given, **fields)


def state_dict(names_shapes: dict[str, list], zeroed: list[str]) -> dict[str, np.ndarray]:
    """Return the weights of a module, from the names and shapes of its state dict."""
    weights = {}
    for name, shape in names_shapes.items():
        g = generator(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        module, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            weights[name] = np.zeros(shape, np.int64)
            continue
        if name in zeroed:
            value = np.zeros(shape)
        elif leaf in ("layerscale", "running_var"):
            value = g.uniform(0.5, 1.5, shape)
        elif leaf == "running_mean":
            value = 0.1 * g.standard_normal(shape)
        elif leaf == "weight" and len(shape) == 1:
            value = g.uniform(0.5, 1.5, shape)
        elif leaf == "weight":
            value = math.sqrt(2 / math.prod(shape[1:])) * g.standard_normal(shape)
        else:
            value = (0.1 if len(names_shapes[f"{module}.weight"]) == 1 else 0.05) * g.standard_normal(shape)
        weights[name] = np.asarray(value, np.float32)
    return weights


def clips_of(kind: str, shape: tuple[int, int, int, int, int]) -> np.ndarray:
    """Return the input ``random`` or ``moving`` of a golden, (b, t, h, w, c) float32."""
    if kind == "random":
        return generator(11).standard_normal(shape).astype(np.float32)
    b, t, h, w, c = shape
    clips = []
    for n in range(b):
        canvas = generator(100 + n).standard_normal((h + 2 * t + 2, w + 2 * t + 2, c))
        canvas = (canvas[:-2] + 2 * canvas[1:-1] + canvas[2:]) / 4
        canvas = (canvas[:, :-2] + 2 * canvas[:, 1:-1] + canvas[:, 2:]) / 4 / 0.375
        sy, sx = (0, -1) if n % 2 == 0 else (-1, 1)
        clips.append([canvas[t + sy * f :, t + sx * f :][:h, :w] for f in range(t)])
    return np.array(clips).astype(np.float32)


def names_shapes(block: TokenMotion, channels: int) -> dict[str, list]:
    """Return names and shapes of a module's state dict for tokens of ``channels`` channels, as its source builds it."""
    found: dict[str, list] = {}

    def norm(name, width):
        found.update({f"{name}.weight": [width], f"{name}.bias": [width]})
        if block.norm == "batch":
            found.update({f"{name}.running_mean": [width], f"{name}.running_var": [width]})
            found[f"{name}.num_batches_tracked"] = []

    def linear(name, inputs, outputs):
        found.update({f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]})

    length, height, width = block.window
    first, second, last = block.integration_widths
    result = block.hidden if block.output == "linear" else block.features
    for index in range(block.encoders):
        encoder = f"stss_encoders.{index}"
        inputs = channels if index == 0 else result
        found.update({f"{encoder}.ln_pre.weight": [inputs], f"{encoder}.ln_pre.bias": [inputs]})
        linear(f"{encoder}.in_proj", inputs, block.hidden)
        found[f"{encoder}.stss_extraction.conv0.0.weight"] = [block.extraction_width, height * width, 1, 1, 1]
        norm(f"{encoder}.stss_extraction.conv0.1", block.extraction_width)
        integration = f"{encoder}.stss_integration"
        if block.integration == "full":
            found[f"{integration}.conv0.0.weight"] = [first, block.extraction_width, 1, 3, 3]
            norm(f"{integration}.conv0.1", first)
            found[f"{integration}.conv1.0.weight"] = [second, first, 1, 3, 3]
            norm(f"{integration}.conv1.1", second)
            found[f"{integration}.conv2_fuse.1.weight"] = [last, length * second, 1, 3, 3]
            norm(f"{integration}.conv2_fuse.2", last)
        else:
            found[f"{integration}.fuse.1.weight"] = [last, length * block.extraction_width, 1, 1, 1]
        linear(f"{encoder}.out_proj", last, result)
    if block.output == "linear":
        linear("out_proj", block.hidden, block.features)
    elif block.output == "layer_scale":
        found["layerscale"] = [block.features]
    return found


class Slow:
    """A module written out in NumPy and float64, cell by cell, from its fields and its state dict.

    Attributes:
        block: the fields.
        weights: the state dict; training replaces its running statistics.
        train: normalise with batch statistics.
        stss: self-similarity of each encoder of the last call, (b, t, h, w, l, u, v).
    """

    def __init__(self, block: TokenMotion, weights: dict[str, np.ndarray], *, train: bool) -> None:
        self.block, self.train = block, train
        self.weights = {name: np.array(value, np.float64) for name, value in weights.items()}
        self.stss: list[np.ndarray] = []

    def __call__(self, x: np.ndarray, *, padded: np.ndarray | None = None) -> np.ndarray:
        """Return the residual (b, t, h, w, d) of features (b, t, h, w, c)."""
        x = np.array(x, np.float64)
        for clip, frames in zip(x, [] if padded is None else padded, strict=False):
            real = [t for t, pad in enumerate(frames) if not pad or t == len(frames) - 1]
            for t in range(len(frames)):
                if t not in real:
                    clip[t] = clip[real[0]]
        total = 0
        for index in range(self.block.encoders):
            x = self.encoder(x, f"stss_encoders.{index}")
            total = total + x
        if self.block.output == "linear":
            return self.linear(total, "out_proj")
        return total * self.weights["layerscale"] if self.block.output == "layer_scale" else total

    def encoder(self, x, name):
        weight, bias = self.weights[f"{name}.ln_pre.weight"], self.weights[f"{name}.ln_pre.bias"]
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        x = self.linear((x - mean) / np.sqrt(var + self.block.epsilon) * weight + bias, f"{name}.in_proj")
        stss = self.similarities(x)
        self.stss.append(stss)
        b, t, h, w, length, u, v = stss.shape
        rows = [stss[:, :, :, :, offset].reshape(b, t, h, w, u * v) for offset in range(length)]
        name = f"{name}.stss_extraction", f"{name}.stss_integration", f"{name}.out_proj"
        rows = self.shared(rows, f"{name[0]}.conv0.0", f"{name[0]}.conv0.1")
        if self.block.integration == "full":
            rows = self.shared(rows, f"{name[1]}.conv0.0", f"{name[1]}.conv0.1")
            rows = self.shared(rows, f"{name[1]}.conv1.0", f"{name[1]}.conv1.1")
            (x,) = self.shared([np.concatenate(rows, -1)], f"{name[1]}.conv2_fuse.1", f"{name[1]}.conv2_fuse.2")
        else:
            x = gelu(self.convolution(np.concatenate(rows, -1), f"{name[1]}.fuse.1"))
        return self.linear(x, name[2])

    def similarities(self, x):
        b, t, h, w, c = x.shape
        length, u, v = self.block.window
        offsets = [-1] if length == 1 else [offset - length // 2 for offset in range(length)]
        cosine = self.block.similarity == "cosine"
        if cosine:
            x = x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-12)
        stss = np.zeros((b, t, h, w, len(offsets), u, v))
        for n, f, i, j, index in np.ndindex(b, t, h, w, len(offsets)):
            other = f + offsets[index]
            if length == 1 or self.block.temporal_padding == "replicate":
                other = min(max(other, 0), t - 1)
            scores = np.full((u, v), -np.inf if self.block.similarity == "dot_softmax" else 0.0)
            for k, m in np.ndindex(u, v):
                y, z = i + k - u // 2, j + m - v // 2
                if 0 <= y < h and 0 <= z < w:
                    target = x[n, other, y, z] if 0 <= other < t else np.zeros(c)
                    scores[k, m] = x[n, f, i, j] @ target / (1 if cosine else math.sqrt(c))
            if self.block.similarity == "dot_softmax":
                scores = np.exp(scores - scores.max())
                scores = scores / scores.sum()
            stss[n, f, i, j, index] = scores
        return stss

    def shared(self, rows, conv, norm):
        """Apply a convolution, the norm and GELU with the same weights to the features of every temporal offset."""
        rows = [self.convolution(x, conv) for x in rows]
        weight, bias = self.weights[f"{norm}.weight"], self.weights[f"{norm}.bias"]
        if self.block.norm == "group":
            axes = (1, 2, 3, 4)
            rows = [(x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5) for x in rows]
        else:
            mean, var = self.weights[f"{norm}.running_mean"], self.weights[f"{norm}.running_var"]
            if self.train:
                every = np.stack(rows).reshape(-1, rows[0].shape[-1])
                self.weights[f"{norm}.running_mean"] = 0.9 * mean + 0.1 * every.mean(0)
                self.weights[f"{norm}.running_var"] = 0.9 * var + 0.1 * every.var(0, ddof=1)
                mean, var = every.mean(0), every.var(0)
            rows = [(x - mean) / np.sqrt(var + 1e-5) for x in rows]
        return [gelu(x * weight + bias) for x in rows]

    def convolution(self, x, name):
        kernel = self.weights[f"{name}.weight"][:, :, 0]
        side, (h, w) = kernel.shape[-1], x.shape[2:4]
        padded = np.pad(x, [(0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)])
        return sum(padded[:, :, i : i + h, j : j + w] @ kernel[:, :, i, j].T for i, j in np.ndindex(side, side))

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x times the share of the normal distribution below x."""
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
