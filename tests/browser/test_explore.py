"""The explorer in a browser: what it draws and tells equals NumPy's numbers, by mouse and by keyboard."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables

import motion_jax
from motion_jax.inspection.clip_inspection import ClipInspection, Comparison, make_inspector
from motion_jax.inspection.colours import flow_colours, length_scale
from motion_jax.inspection.pages.explore import Clip, Network, colour_table, explorer_page
from motion_jax.ops import l2_normalize, local_correlation

pytestmark = pytest.mark.long

LABELS = [f"class {number}" for number in range(7)]
FRAMES, SIZE = 4, 64
FIELDS = {
    "msnet_tsm_r18": {"radius": 3, "reduction": None},
    "selfynet_tsm_r18": {"window": (3, 5, 5)},
    "corrblock_tsm_r18": {"radius": 2},
}


@functools.cache
def seen_by(name) -> tuple[ClipInspection, np.ndarray]:
    """What an untrained network sees in a clip, and what ``truth_of`` needs of its own features."""
    model = motion_jax.build_model(name, num_classes=len(LABELS), width=8, **FIELDS[name])
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    clip = np.stack([np.roll(scene, (3 * frame, 7 * frame), (0, 1))[:SIZE, :SIZE] for frame in range(FRAMES)])
    variables = random_variables(model, clip[None])
    (site,) = model.backbone.blocks

    @jax.jit
    def features():  # The compiler drops the rest of the network.
        _, aux = model.apply(variables, clip[None], train=False, method="features")
        return next((aux[key][0] for key in ("stss", "correlation") if key in aux), aux["stages"][site][0])

    return make_inspector(model, variables)(clip), np.asarray(features())


def without_motion() -> ClipInspection:
    """What a network without a motion block sees in noise."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)
    probabilities = rng.dirichlet(np.ones(len(LABELS)), FRAMES).astype(np.float32)
    return ClipInspection(frames, probabilities.mean(0), probabilities, rng.random((7, FRAMES, 2, 2), np.float32), None)


@pytest.fixture
def explorer(open_page, tmp_path):
    """Open the page of networks on one clip, all overlays shown; the right class is the second best."""

    def open_(*names, seen=None, copies=1, **options):
        seen = seen or [seen_by(name)[0] for name in names]
        label = int(np.argsort(-seen[0].probabilities)[1])
        clips = [Clip(f"{number}.mp4", label, "the name of its folder", seen) for number in range(copies)]
        path = tmp_path / "page.html"
        path.write_text(explorer_page([Network(name, "runs/x") for name in names], clips, LABELS), encoding="utf-8")
        page = open_page(path, **options)
        page.wait_for_selector("body[data-ready]")
        return page

    return open_


def pixels(page, selector):
    """Return the RGBA pixels of a canvas."""
    code = """(canvas) => [canvas.height, canvas.width,
        Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)]"""
    height, width, data = page.eval_on_selector(selector, code)
    return np.array(data, np.uint8).reshape(height, width, 4)


def entries(picture):
    """Return which entry of the table each pixel shows; -1 for transparent ones. Raises if it is none."""
    table = {tuple(colour): entry for entry, colour in enumerate(colour_table().tolist())}
    return np.array([[table[tuple(rgb)] if alpha else -1 for *rgb, alpha in row] for row in picture.tolist()])


def numbers(text):
    """Return the numbers in a text of the page."""
    return [float(word.replace("−", "-")) for word in re.findall(r"[+−]?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def show_frame(page, frame):
    page.click(f".strip button[data-frame='{frame}']")


def point(page, cell, grid, *, click=True, article=1):
    """Click the middle of a cell (row, column) of the stage, or only move there."""
    stage = page.locator(f"article:nth-of-type({article}) .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = (cell[1] + 0.5) / grid[1] * box["width"], (cell[0] + 0.5) / grid[0] * box["height"]
    (stage.click if click else stage.hover)(position={"x": x, "y": y})


def truth_of(name):
    """Return the similarities (t, h, w, l, u, v) of a network, as it sows them or by ``local_correlation``."""
    _, own = seen_by(name)
    if name == "selfynet_tsm_r18":
        return own
    if name == "corrblock_tsm_r18":
        values = own.mean(-1)[:, :, :, None]
        return np.concatenate([np.zeros_like(values[:1]), values[1:]])
    features = l2_normalize(jnp.asarray(own))
    scores = np.maximum(local_correlation(features[:-1], features[1:], radius=3), 0)
    return np.concatenate([scores, np.zeros_like(scores[:1])])[:, :, :, None]


@pytest.mark.parametrize("name", ["msnet_tsm_r18", "selfynet_tsm_r18", "corrblock_tsm_r18"])
def test_a_clicked_cell_shows_its_similarities(explorer, name):
    page, motion, truth = explorer(name), seen_by(name)[0].comparison, truth_of(name)
    frames, rows, columns, _, u, v = truth.shape
    for frame, row, column in ((1, 2, 3), (2, 0, columns - 1)):
        show_frame(page, frame)
        point(page, (row, column), (rows, columns))
        present = [at for at, offset in enumerate(motion.offsets) if 0 <= frame + offset < frames]
        assert page.locator(".window").count() == len(present)
        i, j = np.mgrid[:u, :v]
        y, x = row + (i - u // 2) * motion.step, column + (j - v // 2) * motion.step
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        low, high = (
            end([truth[frame, row, column, at][inside] for at in present], axis=None) for end in (np.min, np.max)
        )
        for at in present:
            selector = f".window[data-offset='{at}']"
            shown = entries(pixels(page, selector))
            np.testing.assert_array_equal(shown >= 0, inside)
            values = low + shown / 255 * (high - low)
            assert np.abs(values - truth[frame, row, column, at])[inside].max() <= (high - low) / 255
            assert high - low <= 1 or name == "corrblock_tsm_r18"
            check_place(page, selector, motion, frame=frame, cell=(row, column), offset=at)


def check_place(page, selector, motion, *, frame, cell, offset):
    """Compare the place of a window, and of the mark of the expected displacement, with the frame they lie on."""
    _, rows, columns, _, u, v = motion.similarities.shape
    code = """(window) => { const frame = window.parentElement.getBoundingClientRect();
        const part = (box) => [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height,
            (box.right - frame.left) / frame.width, (box.bottom - frame.top) / frame.height];
        const mark = window.parentElement.querySelector(".expected");
        return [part(window.getBoundingClientRect()), mark.cx.baseVal.value, mark.cy.baseVal.value]; }"""
    place, x, y = page.eval_on_selector(selector, code)
    middle = np.array([(cell[1] + 0.5) / columns, (cell[0] + 0.5) / rows])
    half = np.array([v * motion.step / columns, u * motion.step / rows]) / 2
    np.testing.assert_allclose(place, [*(middle - half), *(middle + half)], atol=2e-3)
    expected = motion.expected[frame, cell[0], cell[1], offset] / SIZE
    np.testing.assert_allclose([x / columns, y / rows], middle + expected, atol=1e-5)


def test_overlays_show_the_colours_of_python(explorer):
    page, seen = explorer("msnet_tsm_r18"), seen_by("msnet_tsm_r18")[0]
    motion, best = seen.comparison, seen.probabilities.argmax()
    forward = motion.expected[:, :, :, 0]
    low, high = motion.confidence[:-1].min(), motion.confidence[:-1].max()
    for frame in (0, 2):
        show_frame(page, frame)
        colours = flow_colours(forward[frame], longest=length_scale(forward[:-1]))
        np.testing.assert_array_equal(pixels(page, ".stage canvas.displacement")[..., :3], colours)
        shown = low + entries(pixels(page, ".stage canvas.confidence")) / 255 * (high - low)
        np.testing.assert_allclose(shown, motion.confidence[frame, :, :, 0], atol=(high - low) / 255)
        activation, peak = seen.activation[best, frame], seen.activation[best].max()
        shown = entries(pixels(page, ".stage canvas.activation"))
        np.testing.assert_allclose(shown / 255 * peak, activation, atol=peak / 255)
        assert shown.argmax() == (activation / peak * 255).round().argmax()
    assert page.text_content(".scales .of-displacement .high") == f"{length_scale(forward[:-1]):.1f}"
    show_frame(page, FRAMES - 1)
    assert page.locator(".stage canvas.displacement").count() == 0
    page.evaluate("document.querySelector('[data-overlay=displacement] input').click()")
    show_frame(page, 0)
    visible = "getComputedStyle(document.querySelector('.stage canvas.displacement')).visibility"
    assert page.evaluate(visible) == "visible"
    page.fill("[data-overlay=displacement] .opacity", "40")
    assert page.evaluate(visible.replace("visibility", "opacity")) == "0.4"
    page.evaluate("document.querySelector('[data-overlay=displacement] input').click()")
    assert page.evaluate(visible) == "hidden"


def test_any_class_can_be_chosen(explorer):
    seen = without_motion()
    page = explorer("tsn_r18", seen=[seen])
    worst = int(seen.probabilities.argmin())
    page.fill("#search", LABELS[worst])
    show_frame(page, 1)
    peak = seen.activation[worst].max()
    shown = entries(pixels(page, ".stage canvas.activation"))
    np.testing.assert_allclose(shown / 255 * peak, seen.activation[worst, 1], atol=peak / 255 + 1e-12)
    assert page.inner_text(".scales .chosen") == LABELS[worst]
    page.fill("#search", "no such class")
    page.press("#search", "Enter")
    assert page.get_attribute("#search", "aria-invalid") == "true"
    assert page.inner_text(".scales .chosen") == LABELS[worst]
    page.click(".bars button >> nth=2")
    third = int(np.argsort(-seen.probabilities)[2])
    assert page.input_value("#search") == page.inner_text(".scales .chosen") == LABELS[third]
    page.fill("#search", "")
    assert page.inner_text(".scales .chosen") == LABELS[seen.probabilities.argmax()]


def test_a_network_without_motion_says_what_it_shows(explorer):
    page = explorer("tsn_r18", seen=[without_motion()])
    assert "no block that compares frames" in page.inner_text(".compared")
    assert page.locator(".of-motion:visible").count() == 0
    assert page.locator(".window").count() == 0
    point(page, (1, 1), (2, 2))
    assert "displacement" not in page.inner_text(".readout >> nth=0")


def test_told_numbers_equal_those_of_numpy(explorer):
    page, seen = explorer("selfynet_tsm_r18"), seen_by("selfynet_tsm_r18")[0]
    motion, best = seen.comparison, seen.probabilities.argmax()
    show_frame(page, 2)
    point(page, (3, 1), motion.similarities.shape[1:3])
    row, column, dx, dy, confidence, activation, _ = numbers(page.inner_text(".readout >> nth=0"))
    assert (row, column) == (4, 2)
    np.testing.assert_allclose([dx, dy], motion.expected[2, 3, 1, motion.main_offset], atol=0.0051)
    assert abs(confidence - motion.confidence[2, 3, 1, motion.main_offset]) <= 5.1e-5
    np.testing.assert_allclose(activation, seen.activation[best, 2, 1, 0], rtol=1e-3)


def test_numbers_of_the_pointer_equal_those_of_numpy(explorer):
    page, seen = explorer("msnet_tsm_r18"), seen_by("msnet_tsm_r18")[0]
    motion, best = seen.comparison, seen.probabilities.argmax()
    show_frame(page, 1)
    point(page, (4, 4), motion.similarities.shape[1:3])
    point(page, (5, 2), motion.similarities.shape[1:3], click=False)
    row, column, dx, dy, confidence, activation, _ = numbers(page.inner_text(".readout >> nth=0"))
    assert (row, column) == (6, 3)
    np.testing.assert_allclose([dx, dy], motion.expected[1, 5, 2, 0], atol=0.0051)
    assert abs(confidence - motion.confidence[1, 5, 2, 0]) <= 5.1e-5
    np.testing.assert_allclose(activation, seen.activation[best, 1, 1, 0], rtol=1e-3)
    # The window of cell (4, 4), at two cells down and one to the left.
    box = page.locator(".window").bounding_box()
    place = {"x": box["width"] * (2 + 0.5) / 7, "y": box["height"] * (5 + 0.5) / 7}
    page.locator(".window").hover(position=place)
    similarity, right, down, time = numbers(page.inner_text(".probe"))
    assert (right, down, time) == (-1, 2, 1)
    assert abs(similarity - motion.similarities[1, 4, 4, 0, 5, 2]) <= 5.1e-5
    # The same by keyboard, from the middle.
    page.mouse.move(0, 0)
    page.focus(".neighbour[tabindex]")
    for key in ("ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    similarity, right, down, _ = numbers(page.inner_text(".probe"))
    assert (right, down) == (1, 1)
    assert abs(similarity - motion.similarities[1, 4, 4, 0, 4, 4]) <= 5.1e-5


def test_bars_and_words_equal_the_probabilities(explorer):
    seen = without_motion()
    page = explorer("tsn_r18", seen=[seen])
    show_frame(page, 2)
    order = np.argsort(-seen.probabilities, kind="stable")
    assert [int(bar.get_attribute("data-label")) for bar in page.locator(".bars button").all()] == order[:5].tolist()
    code = "(bars) => bars.map((bar) => bar.getBoundingClientRect().width / bar.parentElement.clientWidth)"
    for selector, truth in ((".of-clip-bar i", seen.probabilities), (".of-frame-bar i", seen.frame_probabilities[2])):
        widths = page.eval_on_selector_all(selector, code)
        np.testing.assert_allclose(widths, truth[order[:5]], atol=2e-3)
    wrong, right = page.locator(".bars li").nth(0), page.locator(".bars li").nth(1)
    assert wrong.get_attribute("class") == "wrong"
    assert "✗ wrong" in wrong.inner_text()
    assert right.get_attribute("class") == "right"
    assert "✓ right" in right.inner_text()
    assert page.inner_text("h1") == f"Seen as {LABELS[order[0]]}, but it is {LABELS[order[1]]}"
    assert "Wrong" in page.inner_text(".lead")


def test_the_player_moves_by_keys(explorer):
    page = explorer("msnet_tsm_r18")
    frame = "document.getElementById('frame').textContent"
    show_frame(page, 0)
    page.keyboard.press(".")
    assert page.evaluate(frame) == "2 / 4"
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert page.evaluate(frame) == "4 / 4"
    page.focus("#time")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(frame) == "3 / 4"
    assert page.get_attribute(".stage img", "alt") == "Frame 3"
    page.focus(".strip [aria-current]")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(frame) == "2 / 4"
    assert page.evaluate("document.activeElement.dataset.frame") == "1"
    point(page, (0, 3), (8, 8))
    page.focus(".stage")
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert page.inner_text(".readout >> nth=0").startswith("row 1, column 5 ")
    page.select_option("#speed", "16")
    page.focus(".stage")
    page.keyboard.press(" ")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.wait_for_selector(".strip button[data-frame='3'][aria-current]")
    page.keyboard.press(" ")
    assert page.get_attribute("#play", "aria-label") == "Play"


def test_two_networks_share_time_and_cell(explorer):
    page = explorer("msnet_tsm_r18", "selfynet_tsm_r18")
    show_frame(page, 1)
    assert [image.get_attribute("alt") for image in page.locator(".stage img").all()] == ["Frame 2"] * 2
    grids = [seen_by(name)[0].comparison.similarities.shape[1:3] for name in ("msnet_tsm_r18", "selfynet_tsm_r18")]
    point(page, (2, 5), grids[0])
    told = [numbers(readout)[:2] for readout in page.locator(".seen .readout").all_inner_texts()]
    x, y = (5 + 0.5) / grids[0][1], (2 + 0.5) / grids[0][0]
    assert told == [[int(y * rows) + 1, int(x * columns) + 1] for rows, columns in grids]
    page.locator("article:nth-of-type(2) .bars button").nth(3).click()
    chosen = [text.inner_text() for text in page.locator(".scales .chosen").all()]
    assert chosen[0] == chosen[1]


def test_maps_of_several_frames(explorer):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    activation = rng.random((7, 2, 2, 2), np.float32)
    probabilities = rng.dirichlet(np.ones(7), 2).astype(np.float32)
    motion = Comparison(
        site="site", block="Block", frames=np.array([0, 4]), offsets=(1,), step=1,
        similarities=rng.random((2, 2, 2, 1, 3, 3), np.float32), expected=rng.random((2, 2, 2, 1, 2), np.float32),
        confidence=rng.random((2, 2, 2, 1), np.float32), estimated=True,
    )  # fmt: skip
    seen = ClipInspection(frames, probabilities.mean(0), probabilities, activation, motion)
    short = dataclasses.replace(seen, frames=frames[:4])
    page = explorer("i3d", "short", seen=[seen, short])
    best = seen.probabilities.argmax()
    for frame, map_ in ((3, 0), (4, 1), (7, 1)):
        page.click(f"article:nth-of-type(1) .strip button[data-frame='{frame}']")
        shown = entries(pixels(page, ".stage canvas.activation"))
        np.testing.assert_allclose(
            shown / 255 * activation[best].max(), activation[best, map_], atol=activation.max() / 255
        )
        assert page.locator(".stage img").nth(1).get_attribute("alt") == f"Frame {frame // 2 + 1}"
    page.click("article:nth-of-type(1) .strip button[data-frame='2']")
    assert page.get_attribute(".neighbour:nth-child(2) img", "alt") == "Frame 5"
    page.click("article:nth-of-type(2) .strip button[data-frame='3']")
    assert page.inner_text("#frame") == "7 / 8"


def test_clips_can_be_picked(explorer):
    page = explorer("msnet_tsm_r18", copies=2)
    show_frame(page, 0)
    page.select_option("#pick", "1")
    page.wait_for_selector("[data-clip='1'] .stage img")
    assert page.inner_text(".above:visible").startswith("1.mp4")
    assert page.locator("article:visible").count() == 1
    page.select_option("#pick", "0")
    page.wait_for_selector("[data-clip='0'] .stage img:visible")
    assert page.inner_text(".above:visible").startswith("0.mp4")


def test_a_click_is_painted_in_time(explorer):
    """On a map and a window as large as those of MSNet-R50."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 28, 28, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    motion = Comparison(
        site="site", block="Block", frames=np.arange(8), offsets=(-1, 0, 1), step=1,
        similarities=rng.random((8, 28, 28, 3, 15, 15), np.float32),
        expected=rng.random((8, 28, 28, 3, 2), np.float32),
        confidence=rng.random((8, 28, 28, 3), np.float32), estimated=True,
    )  # fmt: skip
    probabilities = rng.dirichlet(np.ones(7), 8).astype(np.float32)
    seen = ClipInspection(frames, probabilities.mean(0), probabilities, rng.random((7, 8, 7, 7), np.float32), motion)
    page = explorer("large", seen=[seen])
    code = """async () => { const stage = document.querySelector(".stage"), times = [];
        const { left, top, width, height } = stage.getBoundingClientRect();
        for (let i = 0; i < 7; i++) {
          const began = performance.now();
          stage.dispatchEvent(new PointerEvent("pointerdown",
            { clientX: left + (width * (i + 0.5)) / 7, clientY: top + height / 2, bubbles: true }));
          await new Promise(requestAnimationFrame);
          times.push(performance.now() - began);
        }
        return times.sort((a, b) => a - b)[3]; }"""
    assert page.evaluate(code) < 50


def test_the_explorer_is_accessible_and_fits_a_phone(explorer, violations, screenshots, tmp_path):
    explorer("msnet_tsm_r18", "selfynet_tsm_r18", copies=2).context.close()
    assert violations(tmp_path / "page.html") == []
    assert len(screenshots(tmp_path / "page.html")) == 4
    explorer("tsn_r18", seen=[without_motion()]).context.close()
    assert violations(tmp_path / "page.html") == []
