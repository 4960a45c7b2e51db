"""The section `data` of a config: how clips are made."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from motion_jax.text import shown

VERSIONS = {
    "diving48": ("v1", "v2"),
    "finegym": ("gym99", "gym288"),
    "ucf101": ("split1", "split2", "split3"),
    "hmdb51": ("split1", "split2", "split3"),
}
"""Data sets with several versions of the labels or of the split into training and validation."""
FILMED = ("something_v1", "something_v2", "kinetics400", *VERSIONS, "list_files", "video_folder")
"""Data sets made of videos in a folder."""
NAMES = ("moving_shapes", *FILMED)
SAMPLINGS = ("segment", "dense")
WINDOW = 64
"""Number of frames that a dense clip spans."""
CROPS = ("multi_scale", "random_resized", "center", "none")
MOST_FRAMES, MOST_SIDE = 1024, 8192
"""The longest clip, and the longest side of a clip or a stored frame."""
MAX_PIXELS = 2**25
"""The default of ``max_pixels``: four frames of 4K."""
POLICIES = ("skip", "swap", "none", "always")
"""Flip policies; see ``flipped_labels`` in data/clips/labels.py."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set, how its clips are sampled and augmented, and how batches are made.

    Configs hold all values.

    Attributes:
        name: data set: moving_shapes (generated), something_v1, something_v2, kinetics400, diving48, finegym, ucf101,
            hmdb51, list_files or video_folder; data/README.md says where each comes from.
        root: folder of the videos and annotations, on this machine; None for moving_shapes, or if `dir` holds the
            prepared records. Stored as an absolute path.
        version: version of the labels or of the split: v1 or v2 for diving48, gym99 or gym288 for finegym, split1 to
            split3 for ucf101 and hmdb51; None for other data sets.
        dir: folder of the prepared records, on this machine; None means WORKDIR/data, or ~/.cache/motion_jax/data if
            the workdir is in a bucket. Stored as an absolute path.
        frames: number of frames per clip.
        size: height and width of a clip in pixels.
        resize: size of the stored frames: (height, width), or the length of the short side with the aspect kept, or
            None to keep the size of the videos.
        quality: JPEG quality of the stored frames, 1 to 100; 95 for moving_shapes.
        sampling: segment (one frame from each of `frames` equal parts of the video) or dense (evenly spaced frames of a
            64-frame window).
        crop: training crop: multi_scale, random_resized, center, or none (resize the whole frame to a square).
            Evaluation takes centre crops, or the whole frame where this is none.
        color_jitter: strengths of the random changes of brightness, contrast, saturation (0 to 10) and hue (0 to 0.5)
            in training; None leaves colors unchanged.
        rand_augment: number of RandAugment operations and their magnitude (0 to 30) in training; None for none.
        flip: horizontal flips in training: skip (flip only classes without a direction), swap (also flip directional
            classes, with the mirrored label), none, or always (flip every class and keep its label).
        clips: numbers of training and validation clips of moving_shapes; None for other data sets.
        threads: number of threads that make batches ahead of use, one batch each; 0 makes batches when asked for.
        processes: number of worker processes with `threads` threads each; 0 uses threads of the main process.
        max_bad_fraction: largest allowed fraction of unreadable videos, 0 to 1; more stop the run.
        drift: largest speed of the camera in moving_shapes, in 64ths of the frame per frame; 0 for a still camera and
            for other data sets.
        max_pixels: largest number of pixels of a frame; files that declare more are refused before they are decoded.
        fingerprint: what the records must hold, as 16 digits that do not depend on the machine; None for any records. A
            run stores that of its records.
    """

    name: str
    root: str | None
    version: str | None
    dir: str | None
    frames: int
    size: int
    resize: tuple[int, int] | int | None
    quality: int
    sampling: str
    crop: str
    color_jitter: tuple[float, float, float, float] | None
    rand_augment: tuple[int, int] | None
    flip: str
    clips: tuple[int, int] | None
    threads: int
    processes: int
    max_bad_fraction: float
    # Checkpoints from before these options lack them.
    drift: float = 0.0
    max_pixels: int = MAX_PIXELS
    fingerprint: str | None = None

    SAME_RESULT: ClassVar = ("root", "dir", "threads", "processes", "max_bad_fraction", "max_pixels")

    def __post_init__(self) -> None:
        # Command lines and JSON give lists.
        for field in ("resize", "clips", "color_jitter", "rand_augment"):
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))
        self._check()
        # A checkpoint keeps these and may be used from another folder.
        for field in ("root", "dir"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, os.path.abspath(os.path.expanduser(getattr(self, field))))

    def _check(self) -> None:
        def expect(field: str, valid: bool, expected: str) -> None:
            if not valid:
                raise ValueError(f"data.{field} is {shown(getattr(self, field))}, expected {expected}")

        expect("name", self.name in NAMES, "one of " + ", ".join(NAMES))
        versions = VERSIONS.get(self.name)
        expected = "one of " + ", ".join(versions) if versions else f"None: {self.name} has one version"
        expect("version", self.version in (versions or (None,)), expected)
        expect("dir", self.dir is None or _is_path(self.dir), "a folder or None")
        for field in ("root", "dir"):
            here = "a folder on this machine: mount the bucket with gcsfuse, or run tools.prepare on each host"
            expect(field, not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(getattr(self, field))), here)
        expect("frames", _is_count(self.frames, 1, MOST_FRAMES), f"an integer from 1 to {MOST_FRAMES}")
        expect("size", _is_count(self.size, 1, MOST_SIDE), f"an integer from 1 to {MOST_SIDE}")
        expect("sampling", self.sampling in SAMPLINGS, "one of " + ", ".join(SAMPLINGS))
        fits = self.sampling != "dense" or self.frames <= WINDOW
        expect("frames", fits, f"at most {WINDOW} with dense sampling")
        expect("crop", self.crop in CROPS, "one of " + ", ".join(CROPS))
        jitter, augment = self.color_jitter, self.rand_augment
        in_range = all(0 <= strength <= most for strength, most in zip(jitter or (), (10, 10, 10, 0.5), strict=False))
        valid = jitter is None or (len(jitter) == 4 and in_range)
        expect("color_jitter", valid, "None, or brightness, contrast, saturation (0 to 10) and hue (0 to 0.5)")
        valid = augment is None or (_is_pair(augment, 0, 100) and augment[0] >= 1 and augment[1] <= 30)
        expect("rand_augment", valid, "None, or the number of operations (1 to 100) and their magnitude (0 to 30)")
        expect("flip", self.flip in POLICIES, "one of " + ", ".join(POLICIES))
        expect("threads", _is_count(self.threads, 0, 1024), "an integer from 0 to 1024")
        expect("processes", _is_count(self.processes, 0, 1024), "an integer from 0 to 1024")
        expect("max_pixels", _is_count(self.max_pixels, 1, 2**30), "an integer from 1 to 2**30")
        expect("max_bad_fraction", 0 <= self.max_bad_fraction <= 1, "a number from 0 to 1")
        if self.name == "moving_shapes":
            expect("root", self.root is None, "None: moving_shapes is generated")
            expect("resize", self.resize is None, "None: moving_shapes is generated at data.size")
            expect("quality", self.quality == 95, "95 for moving_shapes")
            expect("clips", _is_pair(self.clips, 1, 10**8), "two integers from 1 to 10**8: train and val clips")
            expect("frames", self.frames >= 3, "3 or more for moving_shapes")
            expect("drift", 0 <= self.drift <= 8, "a number from 0 to 8")
            fits = self.size >= 32 and self.size % 8 == 0
            expect("size", fits, "a multiple of 8, 32 or more, for moving_shapes")
        else:
            cure = "set --config.data.root=DIR, or --root=DIR for tools.prepare"
            # Prepared records alone are enough.
            valid = _is_path(self.root) or (self.root is None and self.dir is not None)
            expect("root", valid, f"the folder of {self.name} (see data/README.md); {cure}")
            expect("quality", _is_count(self.quality, 1, 100), "an integer, 1 to 100")
            expect("clips", self.clips is None, "None: data.clips belongs to moving_shapes")
            expect("drift", self.drift == 0, "0: data.drift belongs to moving_shapes")
            shape = self.resize is None or _is_count(self.resize, 1, MOST_SIDE) or _is_pair(self.resize, 1, MOST_SIDE)
            expect("resize", shape, f"(height, width), a short side, or None; sides up to {MOST_SIDE}")
            short = self.resize if isinstance(self.resize, int) else min(self.resize or (self.size,))
            expect("resize", short >= self.size, f"no side below data.size ({self.size})")


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_pair(value: object, least: int, most: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_count(item, least, most) for item in value)


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path) and bool(str(value))
