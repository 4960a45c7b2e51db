"""The FLOPs printed in the supplements of MotionSqueeze and SELFY, beside ours.

Networks of other authors that are only quoted there are left out; TSM's quoted figure is in, since TSM is built here.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from motion_jax.models import build_model
from motion_jax.profiling.operations import count

# (name of a model, and frames=, num_classes= or fields of its block) -> GFLOPs in the papers' convention.
Counter = Callable[..., float]

SOMETHING_SOMETHING, KINETICS = 174, 400
SIZE = 224


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed figure.

    Attributes:
        source: supplement and table.
        row: what the figure is of, as printed.
        printed: the figure, with the printed digits.
        ours: the same from counts of ours.
        note: why ours does not round to it, where that is so.
        unit: ``G`` for 10^9 operations, or ``%``.
    """

    source: str
    row: str
    printed: str
    ours: Callable[[Counter], float]
    note: str = ""
    unit: str = "G"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A printed figure beside ours.

    Attributes:
        published: the figure.
        ours: the same from our counts, in its unit.
    """

    published: Published
    ours: float

    @property
    def difference(self) -> float:
        """Ours less the printed one."""
        return self.ours - float(self.published.printed)

    @property
    def met(self) -> bool:
        """Whether ours, rounded to the printed digits, is the printed figure."""
        decimals = len(self.published.printed.partition(".")[2])
        return f"{self.ours:.{decimals}f}" == self.published.printed


MS_1 = "MotionSqueeze, Table 1"
MS_2 = "MotionSqueeze, Table 2"
MS_TEXT = "MotionSqueeze, section 2"
SELFY_2 = "SELFY, Table 2"
SELFY_3A = "SELFY, Table 3a"
SELFY_3G = "SELFY, Table 3g"

PUBLISHED = (
    Published(MS_1, "TSM-R50", "33.1", lambda gflops: gflops("tsm_r50")),
    Published(MS_1, "MSNet-R50, 1x(1,1)", "33.4", lambda gflops: gflops("msnet_tsm_r50", transformation="1x(1,1)")),
    Published(MS_1, "MSNet-R50, 1x(3,3)", "33.5", lambda gflops: gflops("msnet_tsm_r50", transformation="1x(3,3)")),
    Published(MS_1, "MSNet-R50, 4x(3,3)", "35.8", lambda gflops: gflops("msnet_tsm_r50", transformation="4x(3,3)")),
    Published(MS_1, "MSNet-R50, ours", "33.7", lambda gflops: gflops("msnet_tsm_r50")),
    Published(MS_2, "baseline", "14.6", lambda gflops: gflops("tsm_r18")),
    Published(MS_2, "CP module", "20.4", lambda gflops: gflops("cpnet_tsm_r18")),
    Published(
        MS_2,
        "MS module",
        "15.0",
        lambda gflops: gflops("msnet_tsm_r18"),
        "the authors' own notebook counts 14.88 too",
    ),
    Published(MS_TEXT, "CP module over the baseline", "6", lambda gflops: gflops("cpnet_tsm_r18") - gflops("tsm_r18")),
    Published(
        MS_TEXT,
        "MS module less than CP module",
        "26",
        lambda gflops: 100 * (1 - gflops("msnet_tsm_r18") / gflops("cpnet_tsm_r18")),
        "follows from the printed 15.0 G of the MS module",
        unit="%",
    ),
    Published(
        SELFY_2,
        "TSM, 16 frames",
        "65",
        lambda gflops: gflops("tsm_r50", frames=16, num_classes=KINETICS),
        "quoted from TSM; convolutions and classifier alone are 65.4 G here, BN is 0.7 G",
    ),
    Published(
        SELFY_2,
        "MSNet-TSM, 16 frames",
        "67",
        lambda gflops: gflops("msnet_tsm_r50", frames=16, num_classes=KINETICS),
    ),
    Published(
        SELFY_2,
        "SELFYNet-TSM, 16 frames",
        "77",
        lambda gflops: gflops("selfynet_tsm_r50", frames=16, num_classes=KINETICS, window=(9, 9, 9)),
    ),
    Published(SELFY_3A, "TSM-R18", "14.6", lambda gflops: gflops("tsm_r18")),
    Published(SELFY_3A, "5x5", "17.1", lambda gflops: gflops("selfynet_tsm_r18", window=(5, 5, 5))),
    Published(SELFY_3A, "9x9", "17.3", lambda gflops: gflops("selfynet_tsm_r18", window=(5, 9, 9))),
    Published(SELFY_3A, "13x13", "18.4", lambda gflops: gflops("selfynet_tsm_r18", window=(5, 13, 13))),
    Published(SELFY_3A, "17x17", "19.8", lambda gflops: gflops("selfynet_tsm_r18", window=(5, 17, 17))),
    Published(SELFY_3G, "TSM-R50, 8 frames", "33.1", lambda gflops: gflops("tsm_r50")),
    Published(
        SELFY_3G,
        "TSM-R50, 16 frames",
        "66.3",
        lambda gflops: gflops("tsm_r50", frames=16),
        "TSM's cost is proportional to the frames: twice the 33.056 G of 8 frames is 66.113 G",
    ),
    Published(
        SELFY_3G,
        "TSM-R50 + NL",
        "46.5",
        lambda gflops: gflops("nonlocal_tsm_r50"),
        "counts one of the block's two matrix products; the other is 10.071 G",
    ),
    Published(SELFY_3G, "TSM-R50 + MHSA", "50.6", lambda gflops: gflops("mhsa_tsm_r50")),
    Published(SELFY_3G, "TSM-R50 + SELFY", "36.6", lambda gflops: gflops("selfynet_tsm_r50")),
)


def compare() -> Iterator[Comparison]:
    """Every printed figure beside ours, counted one after the other."""

    @functools.cache
    def gflops(name: str, *, frames: int = 8, num_classes: int = SOMETHING_SOMETHING, **fields: Any) -> float:
        return count(build_model(name, num_classes=num_classes, **fields), (frames, SIZE, SIZE, 3)).gflops

    for published in PUBLISHED:
        yield Comparison(published, published.ours(gflops))
