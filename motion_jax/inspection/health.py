"""Check operations and motion blocks on the devices of this machine against the slow reference.

A network with a wrong correlation still trains, but learns nothing from motion. The checks cover every operation of a
motion block and both blocks, with their gradients, in each dtype, on several maps at once that are not square, fill no
tile or are smaller than the window.
"""

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from motion_jax import blocks, ops
from motion_jax.inspection import reference
from motion_jax.layers import at_least_float32

# Bounds of the error: of the result as a share of its largest value, and of the gradient as a share of its length.
# Scores of bfloat16 features are computed in float32, and only their gradient is rounded to bfloat16. Inside a block
# every layer rounds, and rounding across the zero of a ReLU removes a gradient: the worst of ten blocks in bfloat16 had
# an error of 0.3, and a wrong gradient has an error of 1.
BOUNDS = {
    "operation": {"float32": (1e-5, 1e-4), "bfloat16": (1e-5, 1e-2), "float64": (1e-9, 1e-6)},
    "block": {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 7e-1), "float64": (1e-9, 1e-5)},
}
# Number of random directions of each argument along which gradients are compared with finite differences.
_DIRECTIONS = 8


@dataclasses.dataclass(frozen=True)
class Subject:
    """An operation or block to check, with its arguments.

    Attributes:
        name: name of the operation or block.
        case: size of the arguments.
        kind: ``operation`` or ``block``, which have different bounds.
        arguments: float64 arrays, cast to the dtype that is checked.
        compute: the function under test, from JAX arrays to one array.
        expect: the reference, from float64 NumPy arrays to the same array.
    """

    name: str
    case: str
    kind: str
    arguments: tuple[np.ndarray, ...]
    compute: Callable[..., jax.Array]
    expect: Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Attributes:
        name: name of the operation or block.
        case: size of the arguments, or their layout over the devices.
        dtype: dtype of the features.
        part: ``result`` or ``gradient``.
        difference: for a result, the largest difference as a share of the largest expected value; for a gradient, the
            length of the difference as a share of the expected length.
        bound: largest difference that passes.
        error: the error that prevented the comparison; empty if there was none.
    """

    name: str
    case: str
    dtype: str
    part: str
    difference: float
    bound: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the bound."""
        return not self.error and self.difference <= self.bound


def make_checks() -> list[functools.partial]:
    """Return the checks: each dtype on the default device, and matching on all devices if there are several."""
    dtypes = ["float32", "bfloat16", *(["float64"] if jax.config.jax_enable_x64 else [])]
    checks = [functools.partial(examine, subject, dtype) for dtype in dtypes for subject in make_subjects()]
    if jax.local_device_count() > 1:
        checks += [functools.partial(examine_devices, backend) for backend in ("pmap", "shard_map")]
    return checks


def title_of(check: functools.partial) -> str:
    """Return what a check of :func:`make_checks` runs on, for a progress bar."""
    subject, *dtype = check.args
    return " ".join([subject.name, *dtype] if isinstance(subject, Subject) else ["match", subject])


def examine(subject: Subject, dtype: str) -> list[Check]:
    """Check result and gradient of a subject in one dtype, compiled for the default device.

    An exception of the compiler or the device becomes the error of a check.
    """
    of_result, of_gradient = BOUNDS[subject.kind][dtype]
    rng = np.random.default_rng(1)
    arguments = [jnp.asarray(argument, dtype) for argument in subject.arguments]
    exact = [np.asarray(argument, np.float64) for argument in arguments]
    expected = subject.expect(*exact)
    weights = rng.choice([-1.0, -0.5, 0.5, 1.0], expected.shape)  # exact in every dtype
    check = functools.partial(Check, subject.name, subject.case, dtype)

    @jax.jit
    def result_and_gradients(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        result, pull_back = jax.vjp(subject.compute, *arguments)
        return result, pull_back(jnp.asarray(weights, result.dtype))

    try:
        # Matching requests full precision itself. The convolutions of a block do not, and rounding on an accelerator
        # would hide errors there.
        with jax.default_matmul_precision("highest") if subject.kind == "block" else contextlib.nullcontext():
            result, gradients = jax.tree.map(lambda x: np.asarray(x, np.float64), result_and_gradients(*arguments))
        difference = relative_difference(result, expected)
    except Exception as error:
        return [check("result", np.inf, of_result, _reason(error))]
    directions = [rng.choice([-1.0, 1.0], (_DIRECTIONS, *argument.shape)) for argument in exact]
    slopes = reference.slopes(lambda *given: np.vdot(weights, subject.expect(*given)), exact, directions=directions)
    found = [np.tensordot(along, each, each.ndim) for along, each in zip(directions, gradients, strict=True)]
    # The maximum of NumPy keeps NaN; that of Python may drop it.
    off = float(np.max([relative_length(*pair) for pair in zip(found, slopes, strict=True)]))
    return [check("result", difference, of_result), check("gradient", off, of_gradient)]


def examine_devices(backend: str) -> list[Check]:
    """Check matching of different features on every local device at once, under ``pmap`` or ``shard_map``."""
    devices = jax.local_devices()
    pairs = [_pair(2, 9, 7, 16, seed=100 + n) for n in range(len(devices))]
    source, target = (np.stack(halves) for halves in zip(*pairs, strict=True))
    options = {"radius": 3, "sigma": 5.0, "temperature": 20.0}
    match = _operation("match", f"{backend} on {len(devices)} devices", source, target, **options)
    expected = np.stack([match.expect(*pair) for pair in zip(source, target, strict=True)])
    given = [jnp.asarray(half, jnp.float32) for half in match.arguments]
    if backend == "pmap":
        on_all = jax.pmap(match.compute, devices=devices)
    else:
        mesh = Mesh(np.array(devices), ("data",))

        def one_row(source: jax.Array, target: jax.Array) -> jax.Array:
            return match.compute(source[0], target[0])[None]

        on_all = jax.jit(jax.shard_map(one_row, mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    bound = BOUNDS["operation"]["float32"][0]
    check = functools.partial(Check, match.name, match.case, "float32", "result")
    try:
        return [check(relative_difference(np.asarray(on_all(*given), np.float64), expected), bound)]
    except Exception as error:
        return [check(np.inf, bound, _reason(error))]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest expected value; NaN if any value is NaN.

    Raises:
        ValueError: if the shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f"the result has shape {found.shape}, expected {expected.shape}")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def relative_length(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the length of the difference of two vectors as a share of the expected length."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def make_subjects() -> list[Subject]:
    """Return the operations and blocks with their arguments, the same on every call."""
    subjects = []
    for shape in ((2, 5, 3, 4, 19), (1, 8, 7, 7, 64)):
        subjects.append(_operation("temporal_shift", _case(shape), _features(*shape, seed=10), fold_div=8))
    # (n, h, w, c, radius): several maps, wider than a tile, a window larger than the map, the size in the papers.
    for *shape, radius in ((2, 5, 9, 7, 2), (3, 17, 13, 33, 4), (2, 4, 3, 5, 7), (2, 28, 28, 64, 7)):
        case = f"{_case(shape)} R={radius}"
        softmax = {"sigma": 5.0, "temperature": 100.0 if radius == 7 else 20.0}
        subjects.append(_operation("local_correlation", case, *_pair(*shape, seed=20), radius=radius))
        subjects.append(_operation("match", case, *_pair(*shape, seed=30), radius=radius, **softmax))
    for *shape, window in ((2, 3, 5, 7, 6, (3, 5, 3)), (2, 6, 4, 9, 33, (5, 9, 9))):
        features = reference.l2_normalize(_features(*shape, seed=40))
        subjects.append(
            _operation("self_similarity", f"{_case(shape)} window {_case(window)}", features, window=window)
        )
    return [*subjects, _motion_squeeze(2, 3, 7, 5, 12), _selfy(2, 3, 5, 8, 12)]


def _features(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _pair(n: int, height: int, width: int, channels: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit features, and the same moved by a cell with noise, so that most positions have one best match."""
    source = _features(n, height, width, channels, seed=seed)
    target = np.roll(source, (1, -1), (1, 2)) + 0.3 * _features(n, height, width, channels, seed=seed + 1)
    return reference.l2_normalize(source), reference.l2_normalize(target)


def _operation(name: str, case: str, *arguments: np.ndarray, **options: object) -> Subject:
    """Make the subject of an operation, which has one name and the same options in ``ops`` and in the reference."""

    def joined(room: types.ModuleType, numpy: types.ModuleType, *given: np.ndarray | jax.Array) -> Any:
        result = getattr(room, name)(*given, **options)
        return numpy.concatenate(result, axis=-1) if isinstance(result, tuple) else result

    compute, expect = functools.partial(joined, ops, jnp), functools.partial(joined, reference, np)
    return Subject(name, case, "operation", arguments, compute, expect)


def _motion_squeeze(*shape: int) -> Subject:
    options = {"radius": 3, "sigma": 5.0, "temperature": 10.0}
    block = functools.partial(blocks.MotionSqueeze, reduction=24, widths=(8, 8, 8), **options)
    expect = functools.partial(reference.motion_squeeze, **options)
    return _block("MotionSqueeze", shape, block, "reduction_conv", expect)


def _selfy(*shape: int) -> Subject:
    options = {"window": (3, 5, 5), "stride": 2}
    block = functools.partial(blocks.Selfy, channels=16, extraction_widths=(4, 8, 8, 8), integration_width=8, **options)
    return _block("Selfy", shape, block, "downsample_conv", functools.partial(reference.selfy, **options))


def _block(name: str, shape: tuple[int, ...], make: Callable, first: str, expect: Callable[..., np.ndarray]) -> Subject:
    """Make the subject of a block: a function of its input and of the kernel of its first convolution."""
    like = jax.eval_shape(functools.partial(make().init, train=False), jax.random.key(0), jnp.zeros(shape))
    # With this seed no value before a ReLU is so close to zero that rounding changes its sign.
    rng = np.random.default_rng(21050)

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            drawn = rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            # No zeros or ones, so that every branch contributes, and no layer that ReLU sets to zero.
            low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "bias": (0.0, 0.4), "mean": (-0.2, 0.2)}[path[-1].key]
            drawn = rng.uniform(low, high, leaf.shape)
        return drawn.astype(np.float32)

    variables = {name: jax.tree_util.tree_map_with_path(draw, like[name]) for name in ("params", "batch_stats")}

    def with_kernel(kernel: np.ndarray | jax.Array) -> dict:
        return {**variables, "params": {**variables["params"], first: {"kernel": kernel}}}

    def compute(x: jax.Array, kernel: jax.Array) -> jax.Array:
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, at_least_float32(x.dtype)), with_kernel(kernel))
        return make(dtype=x.dtype).apply(wide, x, train=False)

    return Subject(
        name,
        _case(shape),
        "block",
        (_features(*shape, seed=21051), variables["params"][first]["kernel"].astype(np.float64)),
        compute,
        lambda x, kernel: expect(with_kernel(kernel), x),
    )


def _case(shape: tuple[int, ...] | list[int]) -> str:
    return "x".join(map(str, shape))
