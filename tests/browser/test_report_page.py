"""The page of tools.report in a browser: what is drawn is where the numbers say, and every control works."""

import json
import re
import time

import numpy as np
import pytest

from motion_jax.inspection.pages.clip_cards import frames_picture
from motion_jax.inspection.pages.report import Evaluation, Run, report_page

pytestmark = pytest.mark.long
CLASSES = ("left", "right", "up", "down <b>")
CLIPS = 80
LONG = "selfynet_tsm_mobilenetv2"  # wider than half a phone


def evaluation(seed, *, classes=CLASSES, clips=CLIPS, skill=2.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % len(classes)
    logits = rng.standard_normal((clips, len(classes)))
    logits[np.arange(clips), labels] += skill
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = scores.argmax(1) == labels
    metrics = {"top1": 100 * right.mean(), "top5": 100.0, "mean_class": 100 * right.mean(), "clips": clips}
    ids = [f"val_{number:04}" for number in range(clips)]
    return Evaluation(metrics, {"name": "made", "split": "val", "step": 60}, scores, labels, classes, ids, "softmax")


def log_of(seed, *, lines=6):
    rng = np.random.default_rng(seed)
    steps = (np.arange(lines) + 1) * 10
    train = [
        {"step": int(step), "split": "train", "loss": float(3 / (1 + i)), "top1": float(rng.uniform(0, 100)),
         "lr": 0.1, "grad_norm": float(rng.uniform(1, 300)), "input_wait": 0.25, "goodput": 0.5}
        for i, step in enumerate(steps)
    ]  # fmt: skip
    return [*train, {"step": int(steps[-1]), "split": "val", "loss": 0.7, "top1": 55.0}]


def card(level, *, right):
    """A clip of uniform frames, each ``level`` brighter than the one before, with an overlay of red and then blue."""
    frames = np.stack([np.full((8, 8, 3), level * frame, np.uint8) for frame in range(4)])
    colours = np.uint8([[255, 0, 0], [0, 0, 255]])[:, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    best = [("left", 0.9), ("up", 0.1)]
    names = {"id": f"clip {level}", "right": right, "label": "left" if right else "up", "predicted": "left"}
    pictures = {"activation": frames_picture(colours)["frames"], "counts": {"activation": 2}, "longest": None}
    return {**names, "best": best, **frames_picture(frames), **pictures}


def run_of(name, seed, **values):
    defaults = {
        "workdir": f"runs/{name}",
        "model": name,
        "config": {"seed": seed, "train": {"steps": 60}},
        "log": log_of(seed),
        "history": [{"time": 1.8e9, "step": 0, "devices": 8, "kind": "cpu", "versions": {"jax": "0.10"}}],
        "evaluation": evaluation(seed, skill=seed),
        "pairs": {"left | right": 50.0 + seed},
        "clips": [card(40, right=True), card(60, right=False)],
    }
    return Run(name, **{**defaults, **values})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    runs = [run_of("weak", 1), run_of(LONG, 3)]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(runs))
    return path, runs


def test_every_point_of_a_curve_is_at_its_value(report, open_page):
    path, runs = report
    page = open_page(path)
    for metric, log_scale in (("loss", False), ("top1", False), ("grad_norm", True)):
        chart = page.locator(f".chart[data-metric={metric}]")
        if (button := chart.locator("h3 button")).count():
            if (button.get_attribute("aria-pressed") == "true") != log_scale:
                button.click()
            assert button.get_attribute("aria-pressed") == str(log_scale).lower()
        # The ticks give the scale; they are drawn by other code than the curve.
        scales = chart.evaluate("""chart => ["x", "y"].map(axis => [...chart.querySelectorAll(`[data-${axis}]`)].map(
            line => [Number(line.dataset[axis]), Number(line.getAttribute(axis + "1"))]))""")
        lines = {}
        for axis, ticks in zip("xy", scales, strict=True):
            assert len(ticks) >= 2, (metric, axis)
            values = np.log([value for value, _ in ticks]) if log_scale and axis == "y" else [v for v, _ in ticks]
            lines[axis] = np.polynomial.Polynomial.fit(values, [pixel for _, pixel in ticks], 1)
        for number, run in enumerate(runs):
            drawn = chart.locator(f"path[data-run='{number}']").get_attribute("d")
            points = [tuple(map(float, point.split(","))) for point in drawn[1:].split("L")]
            known = [(line["step"], line[metric]) for line in run.log if line["split"] == "train"]
            expected = [(lines["x"](step), lines["y"](np.log(value) if log_scale else value)) for step, value in known]
            np.testing.assert_allclose(points, expected, atol=0.02)


def test_the_readout_follows_the_pointer_and_the_keys(report, open_page):
    page = open_page(report[0])
    values = "table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    chart = page.locator(".chart[data-metric=loss]")
    header, weak, strong = chart.locator("table").evaluate(values)
    assert header == ["Last values", "train", "val"]
    assert weak == ["weak", "0.5", "0.7"]
    chart.locator(":scope > svg").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".chart[data-metric=grad_norm] table").evaluate(values)[0][0] == "Step 50"
    page.keyboard.press("Home")
    header, weak, strong = chart.locator("table").evaluate(values)
    assert (header[0], weak[1], strong[1]) == ("Step 10", "3", "3")
    box = chart.locator(":scope > svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 50)
    assert chart.locator("table").evaluate(values)[0][0] == "Step 60"
    page.locator("#runs button").first.click()
    assert chart.locator("path[data-run='0']").count() == 0
    assert chart.locator("path[data-run='1']").count() == 1
    assert [row[0] for row in chart.locator("table").evaluate(values)[1:]] == [LONG]


def test_the_cells_of_the_matrix_have_the_shade_of_their_share(report, open_page):
    path, runs = report
    page = open_page(path, dark=True)
    for number, run in enumerate(runs):
        page.select_option("#confusion-run", str(number))
        colours = {name: np.array(page.evaluate(f"rgb('--{name}')")) for name in ("sunken", "right", "wrong")}
        counts = np.zeros((4, 4))
        np.add.at(counts, (run.evaluation.labels, run.evaluation.scores.argmax(1)), 1)
        margin, side = page.evaluate("[matrix.margin, matrix.size]")
        for label in range(4):
            for chosen in range(4):
                x, y = margin + (chosen + 0.5) * side, (label + 0.5) * side
                pixel = page.evaluate(
                    "([x, y]) => [...byId('matrix').getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)", [x, y]
                )
                share = counts[label, chosen] / counts[label].sum()
                full = colours["right" if label == chosen else "wrong"]
                strength = 0.15 + 0.85 * np.sqrt(share) if share else 0
                np.testing.assert_allclose(pixel, colours["sunken"] + (full - colours["sunken"]) * strength, atol=1)


def test_a_cell_lists_its_clips(report, open_page):
    path, (run, _) = report
    page = open_page(path)
    chosen = run.evaluation.scores.argmax(1)
    rows = np.flatnonzero((run.evaluation.labels == 1) & (chosen == 2))
    rows = rows[np.argsort(-run.evaluation.scores.max(1)[rows], kind="stable")]
    expected = [f"val_{row:04} {100 * run.evaluation.scores.max(1)[row]:.1f} %" for row in rows]
    assert expected
    page.locator("#matrix").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator("#cell").text_content() == f"right, predicted as up: {len(rows)} of 20 clips."
    page.keyboard.press("Enter")
    assert page.locator("#listed li").all_text_contents() == expected
    page.locator(".confused:not([hidden]) button").last.click()
    assert page.locator("#listed li").all_text_contents() != expected
    # The corner of the matrix is the cell of the first class.
    box, width = page.locator("#matrix").bounding_box(), page.evaluate("[matrix.margin, matrix.size]")
    page.mouse.click(box["x"] + width[0] + 2.5 * width[1], box["y"] + 1.5 * width[1])
    assert page.locator("#listed li").all_text_contents() == expected


def test_the_bars_of_reliability_have_the_height_of_the_accuracy(report, open_page):
    path, runs = report
    page = open_page(path)
    assert page.locator("#bins figure").count() == 2
    for number, run in enumerate(runs):
        confidence = run.evaluation.scores.max(1)
        right = run.evaluation.scores.argmax(1) == run.evaluation.labels
        figure = page.locator("#bins figure").nth(number)
        frame = figure.locator(".frame").evaluate("r => ['x', 'y', 'width'].map(name => Number(r.getAttribute(name)))")
        drawn = figure.locator(".accuracy").evaluate_all(
            "all => all.map(r => ['data-bin', 'y', 'x', 'height'].map(name => Number(r.getAttribute(name))))"
        )
        bins = np.ceil(confidence * 15).astype(int) - 1
        assert [at for at, *_ in drawn] == sorted(set(bins.tolist()))
        for at, y, x, height in drawn:
            assert y + height == pytest.approx(frame[1] + frame[2])
            assert 1 - (y - frame[1]) / frame[2] == pytest.approx(right[bins == at].mean(), abs=1e-4)
            assert x == pytest.approx(frame[0] + at / 15 * frame[2] + 0.5)


def test_clips_play_with_overlays(report, open_page):
    page = open_page(report[0])
    page.wait_for_selector("#right-clips canvas")
    middle = "all => all.map(c => [...c.getContext('2d').getImageData(8, 8, 1, 1).data].slice(0, 3))"
    canvases = page.locator(".card canvas")

    def show(frame, overlay, opacity=100):
        page.select_option("#overlay", overlay)
        page.evaluate(f"byId('opacity').value = {opacity}; byId('frame').value = {frame};")
        page.locator("#frame").dispatch_event("input")
        return np.array(canvases.evaluate_all(middle))

    assert page.locator("#play").text_content() == "Play"  # less motion is asked for
    for frame in range(4):
        levels = np.repeat([[40 * frame], [60 * frame]], 3, axis=1)
        np.testing.assert_allclose(show(frame, ""), levels, atol=4)
    np.testing.assert_allclose(show(1, "activation"), [[255, 0, 0]] * 2, atol=4)
    np.testing.assert_allclose(show(3, "activation"), [[0, 0, 255]] * 2, atol=4)
    np.testing.assert_allclose(show(3, "activation", 50)[0], [60, 60, 187], atol=5)
    assert page.locator("#overlay [value=displacement]").is_disabled()
    page.locator("#play").click()
    deadline = time.monotonic() + 10
    while page.locator("#frame").input_value() == "3" and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert page.locator("#frame").input_value() != "3"
    assert page.locator("#wrong-clips .wrong").first.text_content() == "✗ left"
    assert "labelled up" in page.locator("#wrong-clips .card p").first.text_content()


def test_tables_sort_by_every_column(report, open_page):
    page = open_page(report[0])
    rows = "all => all.map(row => row.cells[{}].dataset.value)"
    buttons = page.locator("#classes thead button")
    for column in range(4):
        for order in ("descending", "ascending") if column else ("ascending", "descending"):
            buttons.nth(column).click()
            assert page.locator("#classes th[aria-sort]").nth(column).get_attribute("aria-sort") == order
            values = page.locator("#classes tbody tr").evaluate_all(rows.format(column))
            values = list(map(float, values)) if column else values
            assert values == sorted(values, reverse=order == "descending")
    assert "<b>" in page.locator("#classes tbody").text_content()


def test_the_report_is_accessible_and_fits_a_phone(report, violations, screenshots):
    assert violations(report[0]) == []
    assert len(screenshots(report[0])) == 4


def test_runs_without_evaluation_show_what_there_is(tmp_path, open_page, violations):
    path = tmp_path / "report.html"
    missing = [("it is not evaluated.", "python eval.py --workdir=runs/new")]
    new = run_of("new", 2, evaluation=None, pairs={}, clips=[], missing=missing)
    path.write_text(report_page([new]))
    page = open_page(path)
    assert page.locator(".warning code").text_content() == "python eval.py --workdir=runs/new"
    assert page.locator(".chart").count() == 6
    assert page.locator("section").evaluate_all("all => all.map(each => each.id)") == [
        "curves", "config", "environment", "history",
    ]  # fmt: skip
    assert violations(path) == []
    path.write_text(report_page([run_of("old", 1, log=[], history=[], clips=[], config={}), new]))
    assert open_page(path).locator("section").count() == 11


def test_hundreds_of_classes_and_long_logs_stay_usable(tmp_path, open_page):
    classes = [f"Pretending to put something number {number} on a surface" for number in range(400)]
    made = [evaluation(seed, classes=classes, clips=20_000, skill=4.0) for seed in (0, 1)]
    runs = [
        run_of(f"run {seed}", seed, evaluation=each, log=log_of(seed, lines=100_000), pairs={})
        for seed, each in enumerate(made)
    ]
    path = tmp_path / "report.html"
    path.write_text(report_page(runs))
    assert path.stat().st_size < 2e6
    page = open_page(path, width=390)
    page.wait_for_selector("#matrix[style]")
    assert page.evaluate("performance.now()") < 20_000
    assert page.locator("#classes tbody tr").count() == 400
    points = page.locator(".chart[data-metric=loss] path[data-run='0']").get_attribute("d").count("L")
    assert points < 400
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Milliseconds to redraw after the pointer moved; the median, as other programs share the processor.
    timed = """(act) => {
        const once = (i) => { const began = performance.now(); act(i); return performance.now() - began; };
        return [...Array(9).keys()].map(once).sort((a, b) => a - b)[4];
    }"""
    for act in (
        "(i) => matrix.at([i, i])",
        "(i) => charts.read(1000 * i)",
        "(i) => { matrix.cell = [i, i]; matrix.list(); }",
    ):
        assert page.evaluate(f"({timed})({act})") < 50, act
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])
    assert data["runs"][0]["curves"]["loss"]["train"][0][-1] == 1_000_000
