"""The last commands of `make demo`, report, visualize and evaluate_motion, on an untrained checkpoint."""

import json

import cv2
import numpy as np
import pytest
from bench import call, error_of, last_json, moving_noise, save_untrained, write_video

from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.tools import evaluate_motion, report


def run_of(model, workdir):
    return save_untrained(moving_shapes.get_config(f"{model},4,smoke").to_dict(), CLASSES, workdir)


@pytest.fixture(scope="module")
def msnet(tmp_path_factory):
    return run_of("msnet_tsm_r18", tmp_path_factory.mktemp("msnet"))


@pytest.fixture(scope="module")
def tsn(tmp_path_factory):
    return run_of("tsn_r18", tmp_path_factory.mktemp("tsn"))


def evaluated(workdir, *, right):
    """Write an evaluation that is right for the given labels and takes the other class of the pair for the rest."""
    labels = np.arange(len(CLASSES))
    chosen = np.where(np.isin(labels, right), labels, labels ^ 1)
    scores = np.eye(len(CLASSES), dtype=np.float32)[chosen]
    workdir.mkdir()
    np.savez(workdir / "scores.npz", scores=scores, labels=labels, names=np.array(CLASSES))
    metrics = {"top1": 100 * len(right) / 12, "top5": 100.0, "mean_class": 50.0, "clips": 12}
    (workdir / "eval.json").write_text(json.dumps({**metrics, "protocol": {"model": workdir.name}}))
    return workdir


def test_report_compares_runs_and_pairs(tmp_path):
    one, two = evaluated(tmp_path / "one", right=[0, 1, 2]), evaluated(tmp_path / "two", right=range(12))
    lines = [{"split": "train", "input_wait": share} for share in (0.5, 0.01, 0.02)] + [{"split": "val", "top1": 1.0}]
    (two / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = call("report", one, two, "--json")
    first, second = last_json(done)["runs"]
    checkpoint = two / "checkpoints" / "latest" / "12"
    assert call("report", f"--checkpoint={one}", f"--checkpoint={checkpoint}", "--json").stdout == done.stdout
    assert (first["input_wait"], second["input_wait"]) == (None, 2.0)
    assert first["chance"] == pytest.approx(100 / 12)
    assert first["pairs"]["move left | move right"] == 100
    assert first["pairs"]["move up | move down"] == 50
    assert first["pairs"]["zoom in | zoom out"] == 0
    assert set(second["pairs"].values()) == {100}


DAMAGES = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    **{content: lambda path, content=content: path.write_text(content) for content in ("[]", "3", "{}", "null")},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["eval.json", "scores.npz"])
def test_a_damaged_evaluation_is_named(tmp_path, name, damage):
    DAMAGES[damage](evaluated(tmp_path / "one", right=[0]) / name)
    assert name in error_of(call("report", tmp_path / "one"))


@pytest.mark.parametrize("damage", [*list(DAMAGES)[1:], "1\n[]\n", '{"input_wait": null}'])
def test_a_damaged_log_is_no_error(tmp_path, damage):
    run = evaluated(tmp_path / "one", right=[0])
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    DAMAGES.get(damage, lambda path: path.write_text(damage))(run / "metrics.jsonl")
    assert last_json(call("report", run, "--json"))["runs"][0]["input_wait"] is None


def test_values_that_are_not_finite_are_refused(tmp_path):
    run = evaluated(tmp_path / "one", right=[0])
    with np.load(run / "scores.npz") as file:
        content = dict(file)
    content["scores"][3, 4] = np.nan
    np.savez(run / "scores.npz", **content)
    assert "scores.npz holds scores that are not finite" in error_of(call("report", run))
    result = json.loads((run / "eval.json").read_text())
    (run / "eval.json").write_text(json.dumps({**result, "top1": float("nan")}))
    np.savez(run / "scores.npz", **{**content, "scores": np.nan_to_num(content["scores"])})
    assert "eval.json is not what eval.py writes (a value is not finite" in error_of(call("report", run))


def test_runs_of_other_videos_are_refused(tmp_path):
    one, two = evaluated(tmp_path / "one", right=[0]), evaluated(tmp_path / "two", right=[0])
    for changes, says in (
        ({"names": np.array([*CLASSES[:-1], "other"])}, "differ in their classes: number 11 is"),
        ({"labels": np.arange(12)[::-1]}, "differ in their labels: number 0 is 0 and 11"),
        ({"labels": np.arange(6), "scores": np.zeros((6, 12), np.float32)}, "have 12 and 6 labels"),
    ):
        with np.load(one / "scores.npz") as file:
            np.savez(two / "scores.npz", **{**dict(file), **changes})
        assert says in error_of(call("report", one, two))


def test_within_pairs_ignores_the_other_classes():
    scores = np.zeros((2, 12), np.float32)
    scores[:, 5] = 9  # another pair wins, and does not matter
    scores[0, 0] = scores[1, 0] = 1
    accuracy = report.within_pairs(scores[:, :2], np.array([0, 1]), CLASSES[:2])
    assert accuracy == {"move left | move right": 50}


def test_report_of_a_run_that_was_not_evaluated(tmp_path):
    with pytest.raises(ValueError, match=r"run python eval\.py --workdir"):
        report.read_run(tmp_path)


def test_visualize_draws_a_picture(msnet, tmp_path):
    target = tmp_path / "new" / "field.png"
    assert call("visualize", f"--checkpoint={msnet}", f"--output={target}", "--examples=0,3").returncode == 0
    picture = cv2.imread(str(target))
    assert picture.shape[1] == 1400
    assert picture.shape[0] > 400  # two clips
    assert picture.std() > 20


def test_visualize_draws_files_at_a_width_and_as_an_animation(msnet, tmp_path):
    video = tmp_path / "noise.avi"
    write_video(video, moving_noise(step=4, seed=0))
    target = tmp_path / "one.svg"
    arguments = (video, f"--checkpoint={msnet}", "--class=zoom in")
    done = call("visualize", *arguments, f"--output={target}", "--width=86mm", "--json")
    assert last_json(done) == {"output": str(target), "files": [str(video)]}
    text = target.read_text()
    assert 'width="243.' in text
    assert ">noise.avi<" in text
    assert ">displacement<" in text
    target = tmp_path / "one.gif"
    assert call("visualize", *arguments, f"--output={target}", "--width=4in").returncode == 0
    assert len(cv2.imreadmulti(str(target))[1]) == 4


def test_visualize_says_what_a_network_without_motion_shows(tsn, tmp_path):
    video, target = tmp_path / "noise.avi", tmp_path / "one.svg"
    write_video(video, moving_noise(step=4, seed=0))
    done = call("visualize", video, f"--checkpoint={tsn}", f"--output={target}")
    assert "tsn_r18 has no motion block that compares cells" in done.stdout
    assert ">activation<" in target.read_text()
    assert "displacement" not in target.read_text()
    assert not (tsn / "data").exists()


def test_evaluate_motion_reports_every_class_and_the_true_motion(msnet):
    done = call("evaluate_motion", f"--checkpoint={msnet}", "--clips=24", "--json")
    result = last_json(done)
    assert set(result) == {*CLASSES, *evaluate_motion.GROUPS, "all motions"}
    for group, names in {**evaluate_motion.GROUPS, "all motions": CLASSES}.items():
        assert result[group]["clips"] == sum(result[name]["clips"] for name in names)
    for row in result.values():
        assert row["ratio"] == pytest.approx(row["epe"] / row["motion"])
        assert row["motion"] > 0.5
        assert min(row["epe"], row["dis"], row["farneback"]) > 0
    # On clips this small optical flow finds the translations, and an untrained network does not.
    assert result["all translations"]["farneback"] < 0.7 * result["all translations"]["motion"]
    assert json.loads((msnet / "motion.json").read_text()) == result


def test_evaluate_motion_reports_whole_cells_and_the_calibration(msnet):
    result = last_json(call("evaluate_motion", f"--checkpoint={msnet}", "--clips=24", "--json"))
    by_cells = result["all translations"]["by_cells"]
    # The window reaches three cells of 4 pixels.
    assert {cells: row["motion"] for cells, row in by_cells.items()} == pytest.approx(
        {"1": 4, "2": 8, "3": 12}, abs=1e-3
    )
    levels = [level["confidence"] for level in result["all motions"]["calibration"]]
    assert len(levels) == 5
    assert levels == sorted(levels)
    assert result["all translations"]["window"] == {"cells": 3, "pixels": 12.0}
    assert "its window reaches 3 cells" in result["all motions"]["verdict"]


def test_evaluate_motion_writes_a_page(msnet, tmp_path):
    page = tmp_path / "new" / "motion.html"
    result = last_json(call("evaluate_motion", f"--checkpoint={msnet}", "--clips=12", f"--output={page}", "--json"))
    text = page.read_text(encoding="utf-8")
    assert result["all motions"]["verdict"] in text
    assert "the window ends at 3 cells (12 px)" in text
    assert text.count("<polyline") == 3  # the network and the zero field over speed, the error over confidence
    assert f"{result['move left']['epe']:.2f}" in text


def test_evaluate_motion_of_videos_compares_with_optical_flow(msnet, tmp_path):
    videos = [tmp_path / f"{step}.avi" for step in (3, -3)]
    for video, step in zip(videos, (3, -3), strict=True):
        write_video(video, moving_noise(step=step, seed=step + 5))
    page = tmp_path / "motion.html"
    before = (msnet / "motion.json").read_bytes() if (msnet / "motion.json").is_file() else None
    done = call("evaluate_motion", *videos, f"--checkpoint={msnet}", f"--output={page}", "--json")
    found = last_json(done)["agreement"]
    assert (found["clips"], found["pairs"]) == (2, 6)
    assert 0.1 < found["passes"] <= 1
    assert f"{found['passes']:.0%} of the pixels of 6 pairs of frames pass" in done.stdout
    assert "Sundaram" in page.read_text(encoding="utf-8")
    assert before == ((msnet / "motion.json").read_bytes() if (msnet / "motion.json").is_file() else None)


def test_evaluate_motion_of_a_network_without_displacement(tsn):
    assert "has no motion block that compares cells" in error_of(call("evaluate_motion", f"--checkpoint={tsn}"))
    assert not (tsn / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: --checkpoint, --output"),
        (("--checkpoint=absent", "--output=a.png", "--bogus"), "unrecognized arguments: --bogus"),
        (("--checkpoint=a", "--output=b.png", "--examples=x"), "--examples takes positions such as 0,2,4; got 'x'"),
        (("--checkpoint=a", "--output=b"), "--output takes a path ending in .png"),
        (("--checkpoint=a", "--output=b.png", "--width=7"), "expected a length from 2in to 40in"),
        (("--checkpoint=a", "--output=b.png", "--width=1cm"), "expected a length from 2in to 40in"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message):
    assert message in error_of(call("visualize", *arguments))


def test_visualize_refuses_an_unknown_class(msnet, tmp_path):
    done = call("visualize", f"--checkpoint={msnet}", f"--output={tmp_path / 'x.png'}", "--class=jump")
    assert "--class=jump is not a class of this checkpoint: move left" in error_of(done)
