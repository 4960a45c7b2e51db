"""Classes of videos, predicted by a network with the clips of its evaluation."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np

from motion_jax.data.clips.given_videos import try_read
from motion_jax.data.clips.single_video import store_array, views_of
from motion_jax.data.clips.views import at_full_resolution
from motion_jax.experiment import Experiment, Trained, load_trained
from motion_jax.weights import Exported

# Classes that are printed.
SHOWN = 5


class Run(Protocol):
    """What a prediction needs of a trained network: ``load_run`` and ``from_pretrained`` return such objects."""

    model: nn.Module
    variables: Mapping[str, Any]
    labels: Sequence[str]
    config: Mapping[str, Any]


def load_run(path: str | os.PathLike) -> Trained:
    """Load the network of a training run.

    Args:
        path: a workdir, of which the best checkpoint is loaded (the latest if no evaluation chose one), or a checkpoint
            in it; local or ``gs://``.

    Returns:
        An object with ``model``, ``variables`` (NumPy), ``labels`` in the order of the logits, and ``config``.

    Raises:
        ValueError: if there is no checkpoint, or it is broken.
    """
    return load_trained(path)


@dataclasses.dataclass(frozen=True, repr=False)
class Predictions:
    """The classes of one video, the most probable first. Printing it shows the first five.

    Attributes:
        labels: names of all classes.
        probabilities: their probabilities (k,), of sum one.
        remark: what is unusual about the video, such as frames that cannot be decoded; empty otherwise.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    remark: str = ""

    def __repr__(self) -> str:
        rows = list(zip(self.labels, self.probabilities, strict=True))[:SHOWN]
        return "\n".join(
            [f"{probability:6.1%}  {label}" for label, probability in rows] + [self.remark] * bool(self.remark)
        )


class Predictor:
    """Function from a video to its classes, with the clips, crops and average of the network's evaluation.

    All videos give clips of one shape, so that the network is compiled once. The scores are those of ``eval.py`` and
    ``tools.predict``.

    Args:
        run: from ``load_run``, ``from_pretrained`` or ``motion_jax.weights.load_exported``.
        clips: clips per video; None for the number in the config.
        crops: crops per clip, 1 or 3; None for the number in the config.
        full_resolution: whether views are cropped from the whole stored short side; None for the config's choice.

    Attributes:
        labels: names of the classes in the order of the logits.
        data: how frames are stored, sampled and cropped.
        protocol: the number of views per video and their average.

    Raises:
        ValueError: if ``run`` is none of these, or a value is not allowed.
    """

    def __init__(
        self,
        run: Run | Exported,
        *,
        clips: int | None = None,
        crops: int | None = None,
        full_resolution: bool | None = None,
    ) -> None:
        if not isinstance(run, Exported) and not all(hasattr(run, name) for name in Run.__annotations__):
            raise ValueError(
                f"a Predictor takes what motion_jax.load_run(PATH) or motion_jax.from_pretrained(PATH) returns, as a "
                f"whole; got a {type(run).__name__}"
            )
        source = run.card if isinstance(run, Exported) else run
        experiment = Experiment.from_config(source.config)
        given = {"clips": clips, "crops": crops, "full_resolution": full_resolution}
        given = {name: value for name, value in given.items() if value is not None}
        self.labels = tuple(source.labels)
        self.protocol = dataclasses.replace(experiment.eval, **given)
        self.data = at_full_resolution(experiment.data) if self.protocol.full_resolution else experiment.data
        if isinstance(run, Exported):
            self._logits = run.predict
        else:
            model, variables = run.model, jax.device_put(run.variables)
            apply = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False))
            self._logits = lambda clips: np.asarray(apply(variables, clips))

    def __call__(self, video: str | os.PathLike | np.ndarray) -> Predictions:
        """Predict the classes of a video.

        Args:
            video: a video file, a folder of frames, or an array of all frames (t, h, w, 3) uint8, RGB, from which the
                clips are sampled.

        Raises:
            ValueError: if no frame can be read, or the array is not one of frames.
        """
        if isinstance(video, str | os.PathLike):
            stored = try_read(video, self.data)
            if isinstance(stored, str):
                raise ValueError(f"{os.fspath(video)}: {stored}")
        else:
            stored = store_array(np.asarray(video), self.data)
        (scores,) = self.scores(self.views(stored.frames)[None])
        order = best_first(scores)
        return Predictions(tuple(self.labels[label] for label in order), scores[order], stored.remark)

    def views(self, frames: Sequence[bytes]) -> np.ndarray:
        """Return the views of a video of stored frames: uint8 (v, t, size, size, 3)."""
        return views_of(frames, self.data, clips=self.protocol.clips, crops=self.protocol.crops)

    def scores(self, views: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, k) of videos with views (n, v, t, h, w, 3)."""
        logits = self._logits(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)
        return average(logits, self.protocol.average)


def average(logits: np.ndarray, kind: str) -> np.ndarray:
    """Average logits of views (n, v, k) to probabilities (n, k): before the softmax (``"logits"``) or after it."""
    if kind == "logits":
        logits = logits.mean(axis=1, keepdims=True)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).mean(axis=1)


def best_first(scores: np.ndarray) -> np.ndarray:
    """Return the classes (k,) by falling score; the first of equal ones first."""
    return np.argsort(-scores, kind="stable")
