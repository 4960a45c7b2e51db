"""The section `data` of a configuration: what clips are made of."""

from dataclasses import dataclass
from pathlib import Path

from motion_jax.data.clips import labels, sampling

VERSIONS = {
    "diving48": ("v1", "v2"),
    "finegym": ("gym99", "gym288"),
    "ucf101": ("split1", "split2", "split3"),
    "hmdb51": ("split1", "split2", "split3"),
}
"""Data sets that exist in several versions: of the labels, or of the division into training and validation."""
FILMED = ("something_v1", "something_v2", "kinetics400", *VERSIONS, "list_files", "video_folder")
"""Data sets made of videos that lie in a folder."""
NAMES = ("moving_shapes", *FILMED)
SAMPLINGS = ("segment", "dense")
CROPS = ("multi_scale", "random_resized", "center", "none")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What clips are made of.

    Every field is given: values live in configurations.

    Attributes:
        name: ``"moving_shapes"`` (generated), or one of :data:`FILMED`; data/README.md says where each comes from.
        root: folder of the videos and their annotations; None for moving_shapes.
        version: which labels or division, for the names in :data:`VERSIONS`; None for the others.
        dir: where prepared records lie; None leaves it to the caller of :func:`open_dataset`.
        frames: frames per clip.
        size: height and width of a clip in pixels.
        resize: stored frame size of videos: (height, width), or the short side with the aspect kept, or None as
            filmed.
        quality: of the JPEGs that frames of videos are stored as, 1 to 100; moving_shapes has always 95.
        sampling: ``"segment"`` over the whole video, or ``"dense"`` within a 64-frame window.
        crop: training crop: ``"multi_scale"``, ``"random_resized"``, ``"center"``, or ``"none"`` (the whole frame is
            squeezed into a square). Evaluation squeezes the whole frame too where this is ``"none"``, and takes centre
            crops otherwise.
        color_jitter: greatest change of brightness, contrast, saturation (shares, 0 or more) and hue (turns, at most
            0.5) in training; None changes no colour.
        rand_augment: number of operations and their magnitude (0 to 30) of RandAugment in training; None for none.
        flip: horizontal flips in training; a policy of :func:`flipped_labels`.
        clips: numbers of train and val clips of moving_shapes.
        threads: threads that make batches, a batch each; 0 makes them in the caller's thread.
        processes: worker processes with ``threads`` threads each; 0 stays in this process.
        max_bad_fraction: greatest share of videos that may be unreadable.
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

    def __post_init__(self) -> None:
        # Command lines and JSON give lists.
        for field in ("resize", "clips", "color_jitter", "rand_augment"):
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))
        _expect("name", self.name, self.name in NAMES, "one of " + ", ".join(NAMES))
        versions = VERSIONS.get(self.name)
        expected = "one of " + ", ".join(versions) if versions else f"None: there is one version of {self.name}"
        _expect("version", self.version, self.version in (versions or (None,)), expected)
        _expect("dir", self.dir, self.dir is None or _is_path(self.dir), "a folder or None")
        _expect("frames", self.frames, _is_count(self.frames, 1), "an integer of 1 or more")
        _expect("size", self.size, _is_count(self.size, 1), "an integer of 1 or more")
        _expect("sampling", self.sampling, self.sampling in SAMPLINGS, "one of " + ", ".join(SAMPLINGS))
        fits = self.sampling != "dense" or self.frames <= sampling.WINDOW
        _expect("frames", self.frames, fits, f"at most {sampling.WINDOW} with dense sampling")
        _expect("crop", self.crop, self.crop in CROPS, "one of " + ", ".join(CROPS))
        _expect("color_jitter", self.color_jitter, *_color_jitter(self.color_jitter))
        _expect("rand_augment", self.rand_augment, *_rand_augment(self.rand_augment))
        _expect("flip", self.flip, self.flip in labels.POLICIES, "one of " + ", ".join(labels.POLICIES))
        _expect("threads", self.threads, _is_count(self.threads, 0), "an integer of 0 or more")
        _expect("processes", self.processes, _is_count(self.processes, 0), "an integer of 0 or more")
        fraction = self.max_bad_fraction
        valid = isinstance(fraction, int | float) and 0 <= fraction <= 1
        _expect("max_bad_fraction", fraction, valid, "a number from 0 to 1")
        if self.name == "moving_shapes":
            _expect("root", self.root, self.root is None, "None: moving_shapes is generated")
            _expect("resize", self.resize, self.resize is None, "None: moving_shapes is made at data.size")
            _expect("quality", self.quality, self.quality == 95, "95: moving_shapes is stored at that alone")
            _expect("clips", self.clips, _is_pair(self.clips), "two integers of 1 or more: train and val clips")
            _expect("frames", self.frames, self.frames >= 3, "3 or more for moving_shapes")
            fits = self.size >= 32 and self.size % 8 == 0
            _expect("size", self.size, fits, "a multiple of 8, 32 or more, for moving_shapes")
        else:
            cure = f"the folder of {self.name}, laid out as data/README.md says (--config.data.root=...)"
            _expect("root", self.root, _is_path(self.root), cure)
            _expect("quality", self.quality, _is_count(self.quality, 1) and self.quality <= 100, "an integer, 1 to 100")
            _expect("clips", self.clips, self.clips is None, "None: only moving_shapes is made to number")
            shape = self.resize is None or _is_count(self.resize, 1) or _is_pair(self.resize)
            _expect("resize", self.resize, shape, "(height, width), a short side, or None")
            short = self.resize if isinstance(self.resize, int) else min(self.resize or (self.size,))
            _expect("resize", self.resize, short >= self.size, f"no side below data.size ({self.size})")


def _expect(field: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(f"data.{field}: {value!r} came, expected {expected}")


def _color_jitter(value: object) -> tuple[bool, str]:
    valid = value is None or (
        isinstance(value, tuple)
        and len(value) == 4
        and all(isinstance(item, int | float) and not isinstance(item, bool) and item >= 0 for item in value)
        and value[3] <= 0.5
    )
    return valid, "None, or brightness, contrast, saturation (0 or more) and hue (0 to 0.5)"


def _rand_augment(value: object) -> tuple[bool, str]:
    valid = value is None or (
        isinstance(value, tuple)
        and len(value) == 2
        and _is_count(value[0], 1)
        and _is_count(value[1], 0)
        and value[1] <= 30
    )
    return valid, "None, or the number of operations (1 or more) and their magnitude (0 to 30)"


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_count(item, 1) for item in value)


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path) and bool(str(value))
