"""The page of ``tools.evaluate_motion``."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from motion_jax.inspection.motion_errors import FLOWS, MOVING, agreement_verdict
from motion_jax.inspection.optical_flow import CHECK_PIXELS, CHECK_SHARE
from motion_jax.inspection.pages.page import data_url, render
from motion_jax.inspection.panels import DrawnClip
from motion_jax.inspection.sheets import overview, save

FIELDS = {"found": "network", "zero": "zero field", "shuffled": "network, other pairs"}
FLOW_NAMES = {"dis": "DIS", "farneback": "Farneback"}


def motion_page(result: Mapping[str, Any], clips: Sequence[DrawnClip], about: Mapping[str, Any]) -> str:
    """Return the page of a result.

    Args:
        result: what ``motion.json`` holds.
        clips: clips to draw.
        about: ``network``, ``block``, ``estimated``, ``reach`` (cells), ``cell`` (pixels) and ``source``.
    """
    drawn = io.BytesIO()
    save(overview(clips, width=8.0), drawn, kind="png")
    picture = data_url(drawn.getvalue(), "png")
    shared = {"about": about, "picture": picture, "clips": clips}
    if "agreement" in result:
        return render(
            "motion.html.j2",
            **shared,
            verdict=agreement_verdict(result["agreement"]),
            agreement=result["agreement"],
            fields=FIELDS,
            moving=MOVING,
            check=(CHECK_SHARE, CHECK_PIXELS),
        )
    kinds = [(name, row) for name, row in result.items() if name.startswith("all ")]
    classes = [(name, row) for name, row in result.items() if not name.startswith("all ")]
    by_cells = result.get("all translations", {}).get("by_cells", {})
    return render(
        "motion.html.j2",
        **shared,
        verdict=result["all motions"]["verdict"],
        agreement=None,
        kinds=kinds,
        classes=classes,
        most=max(max(row[name] for name in ("epe", "motion", *FLOWS)) for _, row in kinds),
        flows={name: FLOW_NAMES[name] for name in FLOWS},
        speeds={
            "at": list(by_cells),
            "network": [row["epe"] for row in by_cells.values()],
            "zero field": [row["motion"] for row in by_cells.values()],
        },
        levels=result["all motions"]["calibration"],
    )
