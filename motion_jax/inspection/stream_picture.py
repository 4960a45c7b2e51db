"""Pictures of a stream: a frame with its decision, and the displacement beside it."""

import cv2
import numpy as np

from motion_jax.inspection.colours import length_scale
from motion_jax.inspection.panels import displacement_panel, enlarged

_HEAD = 44  # pixels of the line above the frame
_INK, _BAR, _PAPER = (29, 28, 27), (23, 112, 63), (255, 255, 255)


class StreamPainter:
    """Pictures of the frames of one stream, in order.

    Colours of the displacement are full at the largest scale of the frames so far.
    """

    def __init__(self) -> None:
        from matplotlib.font_manager import findfont
        from PIL import ImageFont

        self._font = ImageFont.truetype(findfont("DejaVu Sans"), 18)
        self._longest = 1.0

    def draw(
        self, frame: np.ndarray, text: str, probability: float, motion: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """Draw a frame (h, w, 3) with a line of text and a bar as long as the probability: RGB uint8 with even sides.

        ``motion`` is the displacement (h', w', 2) in pixels of the frame and its confidence (h', w').
        """
        panels = [enlarged(frame)]
        if motion:
            field, confidence = motion
            self._longest = max(self._longest, length_scale(field))
            panels.append(self._with_arrows(frame, field, confidence))
        picture = np.concatenate(panels, axis=1)
        head = np.full((_HEAD, picture.shape[1], 3), _PAPER, np.uint8)
        cv2.rectangle(head, (0, _HEAD - 8), (round(probability * picture.shape[1]), _HEAD - 1), _BAR, -1)
        picture = np.concatenate([self._written(head, text), picture])
        return np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])

    def _with_arrows(self, frame: np.ndarray, field: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        panel = displacement_panel(frame, field, longest=self._longest, confidence=confidence)
        image = np.ascontiguousarray(panel.image)
        size = np.array([image.shape[1], image.shape[0]])
        for x, y, dx, dy in panel.arrows:
            start, end = (np.round(np.array(point) * size).astype(int) for point in ((x, y), (x + dx, y + dy)))
            cv2.arrowedLine(image, tuple(start.tolist()), tuple(end.tolist()), _INK, 2, cv2.LINE_AA, tipLength=0.3)
        return image

    def _written(self, head: np.ndarray, text: str) -> np.ndarray:
        from PIL import Image, ImageDraw

        image = Image.fromarray(head)
        ImageDraw.Draw(image).text((8, 8), text, fill=_INK, font=self._font)
        return np.asarray(image)
