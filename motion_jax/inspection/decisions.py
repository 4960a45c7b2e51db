"""From the probabilities of single frames to steady decisions: smoothing over time and hysteresis."""

import math

import numpy as np


class Decisions:
    """The decision after each frame of a stream.

    Probabilities are averaged with weights that decay exponentially with the age of a frame. Another class is decided
    for once its average has led by a margin for a number of frames in a row.
    """

    def __init__(self, *, smoothing: float = 0.0, margin: float = 0.0, hold: int = 1) -> None:
        """Set the rule. Without arguments, the most probable class of each frame is the decision.

        Args:
            smoothing: seconds in which the weight of a frame falls to 1 / e; 0 for no average.
            margin: by how much the average of another class must exceed that of the current one.
            hold: number of frames in a row in which it must do so.
        """
        self.smoothing, self.margin, self.hold = smoothing, margin, hold
        self._time = -math.inf
        self._average: np.ndarray | None = None
        self._current = self._rival = -1
        self._leads = 0

    def update(self, time: float, probabilities: np.ndarray) -> tuple[int, float]:
        """Return the class that is decided for, and its average probability.

        Args:
            time: of the frame, in seconds.
            probabilities: of the classes (k,).

        >>> decisions = Decisions(hold=2)
        >>> [decisions.update(0.1 * n, np.eye(2)[label])[0] for n, label in enumerate([0, 1, 0, 1, 1])]
        [0, 0, 0, 0, 1]
        """
        if self._average is None:
            self._average = np.array(probabilities, float)
            self._current = int(self._average.argmax())
        else:
            kept = math.exp(-(time - self._time) / self.smoothing) if self.smoothing else 0.0
            self._average = kept * self._average + (1 - kept) * probabilities
        self._time = time
        best = int(self._average.argmax())
        leads = best != self._current and self._average[best] - self._average[self._current] >= self.margin
        self._leads = self._leads + 1 if leads and best == self._rival else int(leads)
        self._rival = best
        if self._leads >= self.hold:
            self._current, self._leads = best, 0
        return self._current, float(self._average[self._current])
