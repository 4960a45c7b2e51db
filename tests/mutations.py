"""Test bench of damaged files: sound files of each kind, seeded mutations, and readers that must read or refuse them.

A reader raises ``ValueError`` to refuse a file, and ``AssertionError`` if it was given other values without a word.
"""

import contextlib
import csv
import importlib.util
import json
import logging
import os
import pathlib
import resource
import shutil
import signal
import string
from collections.abc import Callable

import bench
import cv2
import jax.numpy as jnp
import numpy as np
import tiny_runs
from fleet import saved

from motion_jax.data.sources import BUILDERS
from motion_jax.data.storage.decoder import decode
from motion_jax.training import checkpoints
from motion_jax.training.evaluation import write_evaluation
from motion_jax.training.state import fingerprint
from motion_jax.weights import load_exported, stablehlo
from motion_jax.weights.card import Card, Preprocessing, card_path, read_card, write_card
from motion_jax.weights.files import read_tensors
from motion_jax.weights.save import save_safetensors

Files = list[pathlib.Path]
SECONDS = 20
"""Time that one file may take."""
MEMORY = 4 * 2**30
"""Address space, in bytes, that all files may take."""
STEPS = 4
_DIGITS, _LETTERS = string.digits, string.ascii_letters
_VARIABLES = {
    "params": {"conv1": {"kernel": np.arange(400, dtype=np.float32)}, "classifier": {"bias": np.ones(3, np.float32)}},
    "batch_stats": {"bn1": {"mean": np.zeros(8, np.float32)}},
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return other bytes: some are flipped, cut off, repeated, removed or zero, or a letter or digit is another one."""
    data = bytearray(content)
    while bytes(data) == content:
        start, stop = sorted(int(at) for at in rng.integers(0, len(content) + 1, 2))
        match rng.integers(8):
            case 0 | 1:
                for at in rng.integers(0, len(data), rng.integers(1, 9)):
                    data[at] ^= 1 << int(rng.integers(8))
            case 2 | 3 if texts := [at for at, byte in enumerate(data) if chr(byte) in _DIGITS + _LETTERS]:
                at = int(rng.choice(texts))
                alike = _DIGITS if chr(data[at]) in _DIGITS else _LETTERS
                data[at] = ord(str(rng.choice(list(alike))))
            case 4:
                del data[start:]
            case 5:
                at = int(rng.integers(0, len(data) + 1))
                data[at:at] = content[start : min(stop, start + 64)]
            case 6:
                del data[start : min(stop, start + 64)]
            case 7:
                data[start : min(stop, start + 16)] = bytes(min(stop, start + 16) - start)
    return bytes(data)


def attack(kind: str, folder: pathlib.Path, first: int, end: int) -> None:
    """Mutate a file of a kind once for each seed from ``first`` to ``end``, and print the outcome of each as a line.

    The process ends by a signal if a file crashes it, or takes more than ``SECONDS``: the last line names the seed.
    """
    make, read = KINDS[kind]
    targets = make(folder / "sound")
    read(folder / "sound", targets[0])
    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for seed in range(first, end):
        rng = np.random.default_rng([seed, *kind.encode()])
        shutil.rmtree(folder / "try", ignore_errors=True)
        shutil.copytree(folder / "sound", folder / "try")
        target = targets[rng.integers(len(targets))].relative_to(folder / "sound")
        path = folder / "try" / target
        path.write_bytes(mutated(path.read_bytes(), rng))
        print(json.dumps({"begin": seed, "file": str(target)}), flush=True)
        signal.alarm(SECONDS)
        result = _outcome(read, folder / "try", path)
        signal.alarm(0)
        print(json.dumps({"seed": seed, "outcome": result}), flush=True)


def _outcome(read: Callable, folder: pathlib.Path, path: pathlib.Path) -> str:
    """Return "read", "refused" or what is wrong."""
    try:
        read(folder, path)
    except ValueError as error:
        message = str(error)
        if "\n" in message or len(message) > 1000:
            return f"not one line: {message[:2000]}"
        if "crashed the decoder" in message or "took more than" in message:
            return message
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def _videos(suffix: str, codec: str) -> Callable[[pathlib.Path], Files]:
    def make(folder: pathlib.Path) -> Files:
        folder.mkdir(exist_ok=True)
        path = folder / f"video{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
        for frame in bench.moving_noise(step=4, seed=0, side=64):
            writer.write(frame[:48])
        writer.release()
        return [path]

    return make


def _frames(suffix: str) -> Callable[[pathlib.Path], Files]:
    def make(folder: pathlib.Path) -> Files:
        folder.mkdir(exist_ok=True)
        path = folder / f"1{suffix}"
        cv2.imwrite(str(path), bench.moving_noise(step=4, seed=0)[0])
        return [path]

    return make


def _decode_video(folder: pathlib.Path, path: pathlib.Path) -> None:
    decode(path, resize_to=None, quality=90, max_pixels=2**20)


def _decode_frames(folder: pathlib.Path, path: pathlib.Path) -> None:
    decode(folder, resize_to=None, quality=90, max_pixels=2**20)


def _make_manifest(folder: pathlib.Path) -> Files:
    folder.mkdir(exist_ok=True)
    rows = [[f"{name}/{number}.mp4", split] for name in "ab" for number, split in ((1, "train"), (2, "val"))]
    for path, _ in rows:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    with (folder / "manifest.csv").open("w") as file:
        csv.writer(file).writerows([["path", "split"], *rows])
    return [folder / "manifest.csv"]


def _make_annotations(folder: pathlib.Path) -> Files:
    contents = {
        "labels": {"Pushing": "0", "Pulling": "1"},
        "train": [{"id": "1", "template": "[Pushing]"}, {"id": "2", "template": "Pulling"}],
        "validation": [{"id": "3", "template": "Pulling"}],
    }
    folder.mkdir(exist_ok=True)
    paths = [folder / f"something-something-v2-{name}.json" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(json.dumps(content))
    return paths


def _layout_of(name: str) -> Callable[[pathlib.Path, pathlib.Path], None]:
    return lambda folder, path: BUILDERS[name].read_layout(folder, None)


def _make_safetensors(folder: pathlib.Path) -> Files:
    folder.mkdir(exist_ok=True)
    save_safetensors(folder / "net.safetensors", _VARIABLES)
    return [folder / "net.safetensors"]


def _make_torch(folder: pathlib.Path) -> Files:
    import torch

    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": {"conv1.weight": torch.arange(40.0)}}, folder / "net.pth")
    return [folder / "net.pth"]


def _read_tensors(folder: pathlib.Path, path: pathlib.Path) -> None:
    read, sound = (read_tensors(each / path.name) for each in (folder, folder.parent / "sound"))
    assert read.keys() == sound.keys(), f"other names: {read.keys()}"
    for name in sound:
        np.testing.assert_array_equal(read[name], sound[name])


def _make_export(folder: pathlib.Path) -> Files:
    folder.mkdir(exist_ok=True)
    path = folder / "net.stablehlo"
    if path.exists():
        return [path]
    stablehlo.save(path, lambda clips: jnp.mean(clips, (1, 2, 3)) @ np.ones((3, 2)), (2, 4, 4, 3), dtype="float32")
    preprocessing = Preprocessing(
        **{"frames": 2, "size": 4, "resize": (4, 4), "sampling": "segment", "crop": "center", "input": "float32"},
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    config = {"model": {"name": "tiny"}, "train": {"steps": 3}}
    described = {"metrics": {"top1": 50.0}, "versions": {"jax": "1"}, "config": config, "model": config["model"]}
    write_card(path, Card(format="stablehlo", labels=("a", "b"), preprocessing=preprocessing, **described))
    return [path]


def _make_card(folder: pathlib.Path) -> Files:
    return [card_path(path) for path in _make_export(folder)]


def _read_export(folder: pathlib.Path, path: pathlib.Path) -> None:
    export = folder / "net.stablehlo"
    load_exported(export)
    sound = folder.parent / "sound" / "net.stablehlo"
    assert export.read_bytes() == sound.read_bytes(), "a changed export is accepted"
    assert read_card(export) == read_card(sound), "a changed card is accepted"


def _make_run(folder: pathlib.Path, *, steps: int = STEPS - 1) -> Files:
    if not folder.exists():
        tiny_runs.run(folder, devices=1, steps=steps, every_steps=1)
    return [folder / name for name in ("config.json", "labels.json", "metrics.jsonl", "history.jsonl")]


def _make_checkpoint(folder: pathlib.Path) -> Files:
    _make_run(folder)
    return [path for path in (folder / "checkpoints" / "best").rglob("*") if path.is_file()]


def _restore(folder: pathlib.Path, path: pathlib.Path) -> None:
    read, sound = (checkpoints.restore(each) for each in (folder, folder.parent / "sound"))
    assert fingerprint(read.variables) == fingerprint(sound.variables), "a changed state is accepted"
    assert (read.config, read.labels) == (sound.config, sound.labels), "a changed config is accepted"


def _make_latest(folder: pathlib.Path) -> Files:
    _make_run(folder)
    newest = max((folder / "checkpoints" / "latest").iterdir(), key=lambda path: int(path.name))
    return [path for path in newest.rglob("*") if path.is_file()]


def _finish(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Train to the end. The state must be that of a run without damage."""
    straight = folder.parent / "straight"
    _make_run(straight, steps=STEPS)
    if folder.name == "sound":
        return
    logging.disable()
    assert tiny_runs.run(folder, devices=1, steps=STEPS, every_steps=1)["finished"]
    assert saved(folder, STEPS) == saved(straight, STEPS), "the final state is another one"


def _make_evaluated(folder: pathlib.Path) -> Files:
    folder.mkdir(exist_ok=True)
    scores = np.random.default_rng(0).dirichlet(np.ones(4), 13)
    protocol = {"average": "softmax", "split": "val", "step": 3, "model": "tiny"}
    config = bench.data_section()
    (folder / "config.json").write_text(json.dumps({"model": {"name": "tiny"}, "data": config}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 3, "epoch": 1, "split": "train", "loss": 1.0}) + "\n")
    write_evaluation(
        folder,
        metrics={"top1": 50.0, "top5": 100.0, "mean_class": 50.0, "clips": 13},
        scores=scores,
        labels=np.arange(13) % 4,
        label_names=tiny_runs.LABELS,
        ids=[str(number) for number in range(13)],
        protocol=protocol,
    )
    return [folder / name for name in ("eval.json", "scores.npz", "metrics.jsonl", "config.json")]


def _report(folder: pathlib.Path, path: pathlib.Path) -> None:
    for command in ("report", "ensemble"):
        done = bench.call(command, *[folder] * (1 + (command == "ensemble")))
        if done.returncode:
            if folder.name == "sound":
                raise AssertionError(done.stderr)
            raise ValueError(bench.error_of(done, only=False))


def _quiet(read: Callable) -> Callable:
    """Return a reader without the lines that FFmpeg and the progress print."""

    def quietly(folder: pathlib.Path, path: pathlib.Path) -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            read(folder, path)

    return quietly


# Kind -> functions that make its files, and that read them.
KINDS: dict[str, tuple[Callable[[pathlib.Path], Files], Callable[[pathlib.Path, pathlib.Path], None]]] = {
    "MP4 videos": (_videos(".mp4", "mp4v"), _decode_video),
    "AVI videos": (_videos(".avi", "MJPG"), _decode_video),
    "JPEG frames": (_frames(".jpg"), _decode_frames),
    "PNG frames": (_frames(".png"), _decode_frames),
    "manifest.csv": (_make_manifest, _layout_of("video_folder")),
    "JSON annotations": (_make_annotations, _layout_of("something_v2")),
    "safetensors": (_make_safetensors, _read_tensors),
    "StableHLO exports": (_make_export, _read_export),
    "cards of exports": (_make_card, _read_export),
    "restored checkpoints": (_make_checkpoint, _restore),
    "newest checkpoint of a run that goes on": (_make_latest, _quiet(_finish)),
    "side files of a run that goes on": (_make_run, _quiet(_finish)),
    "evaluations in report and ensemble": (_make_evaluated, _report),
}
if importlib.util.find_spec("torch"):
    KINDS["PyTorch files"] = (_make_torch, _read_tensors)
