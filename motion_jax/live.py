"""Causal networks on live frames: one decision per frame of a video or a camera."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from motion_jax import streaming
from motion_jax.blocks.protocol import declared
from motion_jax.data.clips.live_frames import view_of
from motion_jax.data.config import DataConfig
from motion_jax.experiment import Experiment, Trained, load_trained
from motion_jax.inspection.decisions import Decisions
from motion_jax.training.progress import log, log_compilation
from motion_jax.weights import load_exported

Motion = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StreamNetwork:
    """A causal network with its state.

    Attributes:
        labels: names of the classes.
        data: how frames are resized and cropped.
        init: function to the state before the first frame.
        step: function from the state and a frame (1, size, size, 3) uint8 to its logits (k,), the displacement in
            pixels (h', w', 2) with its confidence (h', w') or None, and the state after it.
    """

    labels: tuple[str, ...]
    data: DataConfig
    init: Callable[[], Any]
    step: Callable[[Any, np.ndarray], tuple[np.ndarray, Motion | None, Any]]


@dataclasses.dataclass(frozen=True)
class Decided:
    """The decision after a frame.

    Attributes:
        time: of the frame, in seconds since the first one.
        label: name of the class.
        probability: its probability, averaged as the rule says.
        milliseconds: from the decoded frame to the decision.
        view: the frame as the network sees it (size, size, 3).
        motion: displacement in pixels (h', w', 2) from the frame before and its confidence (h', w'), or None.
    """

    time: float
    label: str
    probability: float
    milliseconds: float
    view: np.ndarray
    motion: Motion | None


def open_stream_network(path: epath.Path, *, motion: bool) -> StreamNetwork:
    """Open a workdir, a checkpoint or a streaming export, compiled for one stream.

    With ``motion``, a network that estimates the displacement gives it.

    Raises:
        ValueError: if there is none, its network is not causal, or the export takes clips.
    """
    network = _of_export(path) if path.is_file() else _of_checkpoint(load_trained(path), motion=motion)
    frame = np.zeros((1, network.data.size, network.data.size, 3), np.uint8)
    log_compilation(network.step, "the network")(network.init(), frame)
    return network


def _of_export(path: epath.Path) -> StreamNetwork:
    exported = load_exported(path)
    if not exported.card.streaming:
        raise ValueError(f"{path} takes clips: export it again, by tools.export --streaming from a causal network")

    def step(state: Any, frame: np.ndarray) -> tuple[np.ndarray, None, Any]:
        logits, state = exported.step(state, frame)
        return logits[0], None, state

    return StreamNetwork(exported.card.labels, Experiment.from_config(exported.card.config).data, exported.init, step)


def _of_checkpoint(trained: Trained, *, motion: bool) -> StreamNetwork:
    model, variables, size = trained.model, jax.device_put(trained.restored.variables), trained.experiment.data.size
    if not trained.experiment.model.causal:
        raise ValueError(
            f"the network in {trained.restored.path} looks at later frames, so it cannot follow a stream: train one "
            "with --config.model.causal=true"
        )
    block = next(iter((model.backbone.blocks or {}).values()), None)
    reach = declared(block, "displacement_reach")

    def step(state: Any, frame: np.ndarray) -> tuple[np.ndarray, Motion | None, Any]:
        if not (motion and reach):
            logits, state = streaming.step(model, variables, state, frame)
            return np.asarray(logits[0]), None, state
        logits, aux, state = streaming.features(model, variables, state, frame)
        field, confidence = (np.asarray(aux[name][0, 0]) for name in ("displacement", "confidence"))
        return np.asarray(logits[0]), (field * reach() * size / field.shape[1], confidence[..., 0]), state

    return StreamNetwork(
        labels=trained.restored.labels,
        data=trained.experiment.data,
        init=lambda: streaming.init(model, variables, size=(size, size)),
        step=step,
    )


def decide(
    network: StreamNetwork, frames: Iterable[tuple[float, np.ndarray]], decisions: Decisions
) -> Iterator[Decided]:
    """Yield the decision after each frame, until the frames end or the user interrupts.

    Args:
        network: the network; its state starts anew.
        frames: times in seconds, and RGB uint8 frames of any size.
        decisions: the rule.
    """
    state = network.init()
    try:
        for moment, frame in frames:
            began = time.perf_counter()
            view = view_of(frame, network.data)
            logits, motion, state = network.step(state, view[None])
            weights = np.exp(logits - logits.max())
            label, probability = decisions.update(moment, weights / weights.sum())
            took = 1000 * (time.perf_counter() - began)
            yield Decided(moment, network.labels[label], probability, took, view, motion)
    except KeyboardInterrupt:
        log("stopped")
