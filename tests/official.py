"""The reference networks' weights and inputs, made again from names and seeds as goldens/RULES.json says."""

import hashlib
import json
import pathlib

import numpy as np

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def generator(seed: int) -> np.random.Generator:
    """NumPy's PCG64, as the goldens use it."""
    return np.random.Generator(np.random.PCG64(seed))


def state_dict(names_shapes: dict[str, list], scaled_last_bn: list[str]) -> dict[str, np.ndarray]:
    """Weights of an official network, from the names and shapes of its state dict."""
    weights = {}
    for name, (shape, dtype) in names_shapes.items():
        g = generator(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        prefix, _, leaf = name.rpartition(".")
        is_bn = f"{prefix}.running_mean" in names_shapes
        if leaf == "num_batches_tracked":
            value = np.zeros(shape)
        elif is_bn and leaf == "weight":
            value = g.uniform(*((0.2, 0.6) if prefix in scaled_last_bn else (0.5, 1.5)), shape)
        elif leaf == "running_var":
            value = g.uniform(0.5, 1.5, shape)
        elif is_bn:
            value = 0.1 * g.standard_normal(shape)
        elif leaf == "weight":
            value = np.sqrt(2 / np.prod(shape[1:])) * g.standard_normal(shape)
        else:
            value = 0.05 * g.standard_normal(shape)
        weights[name] = np.asarray(value, dtype)
    return weights


def sha256(weights: dict[str, np.ndarray]) -> str:
    """The goldens' check sum over all weights."""
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(weights[name]).tobytes() for name in sorted(weights))
    ).hexdigest()


def description(name: str) -> dict:
    """What goldens/<name>.json holds."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    """What goldens/<name>.npz holds."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


def normalise(clips: np.ndarray) -> np.ndarray:
    """ImageNet normalisation of clips in [0, 1], in float64."""
    return (clips.astype(np.float64) - MEAN) / STD


def input_a(frames: int = 8) -> np.ndarray:
    """Two clips of noise."""
    return normalise(generator(0).random((2, frames, 224, 224, 3), dtype=np.float32))


def input_b(frames: int = 8) -> np.ndarray:
    """Two clips whose content moves by one cell of res3 per frame."""
    clips = []
    for n, (oy, ox, vy, vx) in enumerate([(64, 160, 4, -8), (170, 60, -8, 3)]):
        canvas = generator(100 + n).random((60, 60, 3), dtype=np.float32).repeat(8, 0).repeat(8, 1)
        clips.append([canvas[oy + vy * t :, ox + vx * t :][:224, :224] for t in range(frames)])
    return normalise(np.array(clips))


def training_input() -> np.ndarray:
    """The two small clips of the training goldens."""
    return normalise(generator(1).random((2, 8, 64, 64, 3), dtype=np.float32))
