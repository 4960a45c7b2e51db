"""How good a network's displacement is: beside the truth, or beside optical flow that passes a check."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motion_jax.inspection.clip_inspection import Comparison
from motion_jax.inspection.displacement import end_point_error, on_grid
from motion_jax.inspection.optical_flow import backward, dis, farneback, in_cells, passes_check

FLOWS = {"dis": dis, "farneback": farneback}
# Cells whose flow is shorter are still.
STILL = 1.0
MOVING = f"moving cells have a flow of {STILL:g} px or more"
# A speed is followed if the error is below this share of the motion.
FOLLOWED = 0.5
# A correlation above this one, and by this much above that of other pairs, counts as agreement.
SEEN = 0.1


def beside_truth(
    comparison: Comparison,
    clip: np.ndarray,
    *,
    displacement: np.ndarray,
    moving: np.ndarray,
    flows: Sequence[str] = tuple(FLOWS),
) -> dict[str, np.ndarray]:
    """Bring a network's displacement, optical flow and the truth of a clip to the cells of the truth.

    For a block that looks back, the truth of a frame is the negated displacement of the same cell between the frame
    before and this frame, where objects cover the cell in both frames.

    Args:
        comparison: what the network compares in the clip.
        clip: frames (t, H, W, 3) uint8.
        displacement: true displacement (t-1, h, w, 2) in pixels.
        moving: where objects move (t-1, h, w).
        flows: names of the methods of optical flow.

    Returns:
        ``found``, ``truth`` and each flow (p, h, w, 2), ``moving`` and ``confidence`` (p, h, w).

    Raises:
        ValueError: if the map of the network has fewer frames than the clip.
    """
    check_frames(comparison, clip)
    main = comparison.main_offset
    looks_back = comparison.offsets[main] < 0
    pairs = comparison.pairs()
    if looks_back:
        # The truth says what moves in all frames but the last.
        pairs = pairs[:-1]
        displacement, moving = -displacement[:-1], moving[:-1] & moving[1:]
    confidence = comparison.confidence[pairs][..., main]
    # The weights of cells are made for cosines; other similarities may be of any size.
    weight = confidence / max(confidence.max(), 1.0)
    grid = moving.shape[1:]
    fields = {}
    for name in flows:
        flow = backward(FLOWS[name], clip)[:-1] if looks_back else FLOWS[name](clip)
        fields[name] = on_grid(flow, grid=grid)
    return {
        "found": on_grid(comparison.expected[pairs][..., main, :].astype(np.float64), grid=grid, confidence=weight),
        **fields,
        "truth": displacement,
        "moving": np.asarray(moving, bool),
        "confidence": on_grid(confidence[..., None], grid=grid)[..., 0],
    }


def check_frames(comparison: Comparison, clip: np.ndarray) -> None:
    """Raise a ValueError if the map of a network has fewer frames than the clip."""
    if len(comparison.frames) != len(clip):
        raise ValueError(
            f"the block compares {len(comparison.frames)} frames of a clip of {len(clip)}, so its displacement spans "
            "several frames and has no end-point error: take a network that keeps all frames"
        )


def errors(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return the end-point errors over clips of ``beside_truth``.

    ``epe`` is the network's, ``motion`` that of a zero field, ``ratio`` their quotient, and one per optical flow.
    """
    truth, moving = (np.concatenate([row[name] for row in rows]) for name in ("truth", "moving"))

    def error(name: str) -> float:
        return end_point_error(np.concatenate([row[name] for row in rows]), truth, moving)

    epe, motion = error("found"), end_point_error(np.zeros_like(truth), truth, moving)
    flows = {name: error(name) for name in FLOWS if name in rows[0]}
    return {"clips": len(rows), "epe": epe, "motion": motion, "ratio": epe / motion, **flows}


def is_better_than_none(rows: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Return whether the error is below that of a zero field, beyond twice the standard error over clips."""
    gains = []
    for row in rows:
        if row["moving"].any():
            zero = end_point_error(np.zeros_like(row["truth"]), row["truth"], row["moving"])
            gains.append(zero - end_point_error(row["found"], row["truth"], row["moving"]))
    deviation = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return bool(np.mean(gains) > 2 * deviation)


def verdict(
    kinds: Mapping[str, bool],
    by_cells: Mapping[int, Mapping[str, float]],
    *,
    reach: int,
    levels: Sequence[Mapping[str, float]],
) -> str:
    """Say in a few sentences what a displacement is good for.

    Args:
        kinds: kind of motion -> whether the displacement is better than none.
        by_cells: speed in cells of the map -> errors, from 1 cell on.
        reach: speed in cells at which the window ends.
        levels: ``calibration`` of the moving cells.

    >>> verdict({"zooms": True}, {1: {"ratio": 0.2}, 2: {"ratio": 0.9}}, reach=1, levels=[{"epe": 2.0}, {"epe": 1.0}])
    'The displacement is better than none on zooms. It follows speeds up to 1 cell, the reach of its window. The most \
confident cells err by 1.0 px, the least confident by 2.0 px.'
    """
    good, bad = ([name for name, better in kinds.items() if better is wanted] for wanted in (True, False))
    if good:
        text = f"The displacement is better than none on {_listed(good)}" + f", not on {_listed(bad)}" * bool(bad) + "."
    else:
        text = "The displacement is not better than none on any kind of motion."
    followed = 0
    while (row := by_cells.get(followed + 1)) and row["ratio"] < FOLLOWED:
        followed += 1
    if not by_cells:
        text += " The map has too few cells to measure speeds."
    elif followed == 0:
        text += f" It follows no speed, not even 1 cell; its window reaches {_cells(reach)}."
    elif followed == reach:
        text += f" It follows speeds up to {_cells(followed)}, the reach of its window."
    else:
        most = max(by_cells)
        what = "the fastest that was measured" if followed == most else f"its window reaches {_cells(reach)}"
        text += f" It follows speeds up to {_cells(followed)}; {what}."
    return (
        f"{text} The most confident cells err by {levels[-1]['epe']:.1f} px, the least confident by "
        f"{levels[0]['epe']:.1f} px."
    )


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def beside_flow(comparison: Comparison, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Bring DIS flow that passes the forward-backward check to the cells of a network's map.

    Returns:
        ``found`` and ``flow`` (p, h, w, 2) in pixels, ``valid`` (p, h, w), and ``passes``, the share of pixels that
        pass the check.
    """
    check_frames(comparison, clip)
    main, pairs = comparison.main_offset, comparison.pairs()
    flow, back = dis(clip), backward(dis, clip)
    if comparison.offsets[main] < 0:
        flow, back = back, flow
    passes = passes_check(flow, back)
    found = comparison.expected[pairs][..., main, :].astype(np.float64)
    cells, valid = in_cells(flow, passes, grid=found.shape[1:3])
    return {"found": found, "flow": cells, "valid": valid, "passes": np.array(passes.mean())}


def agreement(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return how a network's displacement agrees with the flow of ``beside_flow``.

    Returns:
        ``passes``, the share of pixels whose flow passes the check; ``clips``, ``pairs`` of frames; and for ``all``
        cells that pass and for the ``moving`` ones among them: the number of ``cells``, and for the network
        (``found``), a zero field (``zero``) and the network's fields of other pairs (``shuffled``) the mean
        ``distance`` to the flow in pixels, the mean ``angle`` in degrees and the ``correlation`` of the components. A
        value is None where it is not defined: without cells, for a zero field, or for fewer than two pairs.
    """
    found, flow, valid = (np.concatenate([row[name] for row in rows]) for name in ("found", "flow", "valid"))
    # Half of all pairs away, so that it is another clip if there are several.
    shuffled = np.roll(found, max(len(found) // 2, 1), axis=0) if len(found) > 1 else None
    fields = {"found": found, "zero": np.zeros_like(found), "shuffled": shuffled}
    moving = valid & (np.linalg.norm(flow, axis=-1) >= STILL)
    result = {"passes": float(np.mean([row["passes"] for row in rows])), "clips": len(rows), "pairs": len(found)}
    for name, cells in (("all", valid), ("moving", moving)):
        compared = {
            field: None if values is None else compare(values[cells], flow[cells]) for field, values in fields.items()
        }
        result[name] = {"cells": int(cells.sum()), **compared}
    return result


def agreement_verdict(found: Mapping[str, Any]) -> str:
    """Say in one sentence what an agreement means, from the cells that move."""
    moving = found["moving"]
    network, shuffled, zero = moving["found"], moving["shuffled"], moving["zero"]
    if network["correlation"] is None:
        return "Too few cells move, or the displacement is the same everywhere: there is no agreement to judge."
    distance, still = network["distance"], zero["distance"]
    nearer = "nearer to the flow than no motion" if distance < still else "not nearer to the flow than no motion"
    text = f"On moving cells the displacement is {nearer} ({distance:.1f} and {still:.1f} px)"
    if shuffled is None or shuffled["correlation"] is None:
        return f"{text}; its correlation with the flow is {network['correlation']:.2f}."
    gain = network["correlation"] - shuffled["correlation"]
    depends = "depends" if gain > SEEN and network["correlation"] > SEEN else "does not depend"
    return (
        f"{text}. It {depends} on the motion of its own frames: its correlation with the flow is "
        f"{network['correlation']:.2f}, that of the displacement of other frames {shuffled['correlation']:.2f}."
    )


def compare(found: np.ndarray, flow: np.ndarray) -> dict[str, float | None]:
    """Return mean distance, mean angle in degrees and correlation of the components of two fields (n, 2).

    >>> compare(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0]]))["distance"]
    5.0
    """
    lengths = np.linalg.norm(found, axis=-1), np.linalg.norm(flow, axis=-1)
    both = (lengths[0] > 1e-6) & (lengths[1] > 1e-6)
    cosine = (found * flow).sum(-1)[both] / (lengths[0] * lengths[1])[both]
    varies = len(flow) and found.std() > 1e-9 and flow.std() > 1e-9
    return {
        "distance": float(np.linalg.norm(found - flow, axis=-1).mean()) if len(flow) else None,
        "angle": float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()) if both.any() else None,
        "correlation": float(np.corrcoef(found.ravel(), flow.ravel())[0, 1]) if varies else None,
    }
