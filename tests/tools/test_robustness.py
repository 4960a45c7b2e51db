"""tools.robustness on untrained networks: measurements, the CSV and the curves."""

import csv
import re

import cv2
import numpy as np
import pytest
from bench import call, error_of, last_json, save_untrained

from motion_jax.configs import moving_shapes
from motion_jax.data.clips.corruption import Corruption
from motion_jax.data.pipeline import eval_batches
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.experiment import load_trained
from motion_jax.inspection.motion_probe import CONDITIONS
from motion_jax.tools import robustness
from motion_jax.training.evaluation import evaluate_model

GRID = ("--corruptions=occlusion,reverse", "--levels=1-2")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    config = moving_shapes.get_config("tsn_r18,4,smoke").to_dict()
    config["data"]["dir"] = str(folder / "data")
    return [save_untrained(config, CLASSES, folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture
def measured(monkeypatch):
    """Record the evaluations, by description, and the compilations from here on."""
    seen = []

    def note(name):
        original = getattr(robustness, name)

        def noted(*arguments, **options):
            seen.append(options.get("description", name))
            return original(*arguments, **options)

        monkeypatch.setattr(robustness, name, noted)

    note("evaluate")
    note("make_eval_step")
    return seen


def by_hand(workdir, corruption):
    trained = load_trained(workdir)
    section = trained.experiment.eval
    batches = eval_batches(trained.dataset, batch_size=section.batch_size, corruption=corruption)
    parallel = trained.experiment.parallel
    return evaluate_model(trained.model, trained.restored.variables, batches, section=section, parallel=parallel)[0]


def test_the_grid_of_two_networks(networks, measured, tmp_path):
    done = call("robustness", *networks, f"--output={tmp_path / 'new'}", *GRID, "--json")
    cells = ["clean", "occlusion:1", "occlusion:2", "reverse:1"]
    # Two networks that differ in their weights alone are compiled once.
    assert measured == ["make_eval_step", *cells, *cells]
    curves = last_json(done)["curves"]
    assert [(curve["checkpoint"], curve["corruption"], curve["levels"]) for curve in curves] == [
        (str(network), *curve) for network in networks for curve in (("occlusion", [0, 1, 2]), ("reverse", [0, 1]))
    ]
    for network, occlusion, reverse in zip(networks, curves[::2], curves[1::2], strict=True):
        assert occlusion["top1"][0] == by_hand(network, None)["top1"]
        assert occlusion["top1"][2] == by_hand(network, Corruption("occlusion", 2))["top1"]
        # TSN sees no order.
        assert reverse["top1"] == [occlusion["top1"][0]] * 2
        assert reverse["area"] == occlusion["top1"][0]
        first, second, third = occlusion["top1"]
        assert occlusion["area"] == pytest.approx((first / 2 + second + third / 2) / 2)
    rows = robustness.read(tmp_path / "new" / "robustness.csv")
    assert [(row["checkpoint"], row["corruption"], row["level"], row["clips"]) for row in rows] == [
        (str(network), name, level, 24)
        for network in networks
        for name, level in (("clean", 0), ("occlusion", 1), ("occlusion", 2), ("reverse", 1))
    ]
    picture = cv2.imread(str(tmp_path / "new" / "robustness.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    assert picture.std() > 10


def test_rows_of_the_csv_are_not_measured_again(networks, measured, tmp_path):
    grid = ("robustness", networks[0], f"--output={tmp_path}", *GRID, "--json")
    first = call(*grid).stdout
    table = tmp_path / "robustness.csv"
    whole = table.read_text()
    measured.clear()
    assert call(*grid).stdout == first
    assert measured == []

    table.write_text("".join(line for line in whole.splitlines(keepends=True) if ",occlusion,2," not in line))
    assert call(*grid).stdout == first
    assert measured == ["make_eval_step", "occlusion:2"]
    assert sorted(table.read_text().splitlines()) == sorted(whole.splitlines())

    # The same place, but other weights, another frame or another split: all is measured.
    measured.clear()
    table.write_text(whole.replace(robustness.read(table)[0]["weights"], "0123456789ab"))
    call(*grid)
    assert len(measured) == 5
    measured.clear()
    call(*grid, "--frame=3")
    assert measured == ["make_eval_step", "occlusion:1:3", "occlusion:2:3", "reverse:1:3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--corruptions=fog",), r"no corruption 'fog': choose one of occlusion"),
        (("--corruptions=reverse", "--levels=2-6"), r"--levels=2-6: the levels of reverse are 1 to 1"),
        (("--levels=6-1",), r"--levels=6-1: the levels of occlusion are 1 to 6"),
        (("--levels=0-2",), r"--levels=0-2: write"),
        (("--levels=a",), r"--levels=a: write"),
        (("--corruptions=drop", "--levels=4-5"), r"drop:5 corrupts 5 frames, too many for a clip of 4"),
        (("--frame=4",), r"occlusion:1:4 corrupts frame 4, but a clip has frames 0 to 3"),
        (("--split=test",), r"no split 'test'"),
    ],
)
def test_bad_input_is_reported_before_anything_is_written(networks, measured, tmp_path, arguments, says):
    done = call("robustness", networks[0], f"--output={tmp_path / 'new'}", *arguments)
    assert re.search(says, error_of(done, only=False))
    assert measured == []
    assert not (tmp_path / "new").exists()


def test_a_csv_with_other_columns_is_not_overwritten(networks, tmp_path):
    (tmp_path / "robustness.csv").write_text("a,b\n1,2\n")
    says = r"does not have the columns checkpoint, .*: choose another --output"
    assert re.search(says, error_of(call("robustness", networks[0], f"--output={tmp_path}", *GRID), only=False))
    assert (tmp_path / "robustness.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(("levels", "expected"), [("1,3", [1, 3]), ("5-8", [5, 6]), ("4,1-2,2", [1, 2, 4])])
def test_levels_are_lists_and_ranges(levels, expected):
    assert [each.level for each in robustness.grid("occlusion", levels, frame=None)] == expected


def test_areas_of_levels_with_gaps():
    def row(corruption, level, top1):
        return {"checkpoint": "x", "model": "m", "corruption": corruption, "level": level, "top1": top1}

    (curve,) = robustness.curves([row("clean", 0, 80.0), row("drop", 3, 50.0), row("drop", 4, 20.0)])
    # 3 levels at 65 on average and one at 35.
    assert curve["area"] == pytest.approx((3 * 65 + 35) / 4)
    assert np.trapezoid(curve["top1"], curve["levels"]) == 4 * curve["area"]


def test_the_motion_probe_of_two_networks(networks, measured, tmp_path):
    done = call("robustness", *networks, "--motion-probe", f"--output={tmp_path / 'new'}", "--json")
    cells = ["clean", "reverse:1", "shuffle:1", "freeze:1", "freeze:2"]
    assert measured == ["make_eval_step", *cells, *cells]
    result = last_json(done)
    assert list(result["probes"]) == ["tsn_r18 0", "tsn_r18 1"]
    with (tmp_path / "new" / "motion_probe.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    for network, (name, rows) in zip(networks, result["probes"].items(), strict=True):
        whole = {row["condition"]: row for row in rows if row["class"] == ""}
        for condition, text in CONDITIONS.items():
            known = by_hand(network, Corruption.parse(text) if text else None)["top1"]
            assert whole[condition]["top1"] == pytest.approx(known)
            assert whole[condition]["drop"] == pytest.approx(whole["in order"]["top1"] - known)
        # TSN averages over the frames, so that their order does not matter.
        assert whole["shuffled"]["drop"] == whole["reversed"]["drop"] == 0
        assert {row["class"] for row in rows} == {"", *CLASSES}
        assert [row["drop_low"] for row in rows] == [
            float(row["drop_low"]) for row in written if row["checkpoint"] == str(network)
        ]
        assert result["verdicts"][name] in done.stdout
    assert cv2.imread(str(tmp_path / "new" / "motion_probe.png")).std() > 10


def test_the_motion_probe_has_its_own_corruptions(networks, tmp_path):
    for option in ("--levels=1", "--corruptions=drop", "--frame=2"):
        done = call("robustness", networks[0], "--motion_probe", f"--output={tmp_path / 'new'}", option)
        assert "--motion-probe has its own corruptions" in error_of(done)
    assert not (tmp_path / "new").exists()
