"""tools.report --output on untrained networks: the page, and what it says of runs that lack something."""

import json
import re
import shutil

import numpy as np
import pytest
from bench import call, error_of, last_json, save_untrained

from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.data.storage.dataset import Dataset


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two networks that share their data, one of them with displacement, evaluated."""
    folder = tmp_path_factory.mktemp("report")
    made = []
    for model in ("msnet_tsm_r18", "tsn_r18"):
        config = moving_shapes.get_config(f"{model},4,smoke").to_dict()
        config["data"]["dir"] = str(folder / "data")
        workdir = save_untrained(config, CLASSES, folder / model)
        assert call("eval", f"--workdir={workdir}").returncode == 0
        made.append(workdir)
    return made


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def test_the_page_shows_the_clips_each_network_is_most_certain_of(evaluated, tmp_path):
    page = tmp_path / "new" / "report.html"
    done = call("report", *evaluated, f"--output={page}", "--clips=2", "--json")
    assert last_json(done) == last_json(call("report", *evaluated, "--json"))
    assert f"-> {page}" in done.stdout
    known_overlays = ({"displacement", "activation"}, {"activation"})
    for workdir, run, overlays in zip(evaluated, data_of(page)["runs"], known_overlays, strict=True):
        cards = run["clips"]
        assert [card["right"] for card in cards] in ([False] * 2, [True, False, False], [True, True, False, False])
        for card in cards:
            assert set(card["counts"]) == overlays <= set(card)
            assert (card["count"], card["size"]) == (4, [32, 32])
            assert card["best"][0][0] == card["predicted"]
            assert (card["label"] == card["predicted"]) == card["right"]
        with np.load(workdir / "scores.npz") as scores:
            right = scores["scores"].argmax(1) == scores["labels"]
            confidence, ids = scores["scores"].max(1), scores["ids"]
        for kind in (True, False):
            known = sorted(zip(-confidence[right == kind], ids[right == kind], strict=True))[:2]
            assert sorted(card["id"] for card in cards if card["right"] == kind) == sorted(id for _, id in known)
    text = page.read_text()
    assert "move left | move right" in text
    assert "not shown" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_a_page_without_the_data_says_so_and_prepares_nothing(evaluated, tmp_path):
    workdir = shutil.copytree(evaluated[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["dir"] = str(tmp_path / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    assert call("report", workdir, f"--output={tmp_path / 'x.html'}").returncode == 0
    assert "the data are gone: there are no prepared records in" in (tmp_path / "x.html").read_text()
    assert data_of(tmp_path / "x.html")["runs"][0]["clips"] == []
    assert not (tmp_path / "gone").exists()


def test_a_run_that_is_not_evaluated_is_on_the_page_only(evaluated, tmp_path):
    workdir = shutil.copytree(evaluated[1], tmp_path / "run")
    (workdir / "scores.npz").unlink()
    assert "run python eval.py" in error_of(call("report", workdir))
    assert call("report", workdir, f"--output={tmp_path / 'half.html'}").returncode == 0
    assert "eval.json or scores.npz is absent" in (tmp_path / "half.html").read_text()
    (workdir / "eval.json").unlink()
    page = tmp_path / "x.html"
    done = call("report", workdir, f"--output={page}", "--json")
    assert last_json(done) == {"runs": []}
    assert f"python eval.py --workdir={workdir}" in page.read_text()
    done = call("report", evaluated[0], workdir, f"--output={page}", "--clips=0", "--json")
    assert [run["model"] for run in last_json(done)["runs"]] == ["msnet_tsm_r18"]
    assert len(data_of(page)["runs"]) == 2
    assert "is no workdir of a run" in error_of(call("report", tmp_path, f"--output={page}"))


@pytest.mark.parametrize("output", [[], ["--output=x.html"]])
def test_runs_on_other_data_are_refused(evaluated, tmp_path, output):
    output = [word.replace("x.html", str(tmp_path / "x.html")) for word in output]
    workdir = shutil.copytree(evaluated[1], tmp_path / "run")
    for one, other, refused in (("0" * 16, "1" * 16, True), ("0" * 16, None, False), ("unchecked-0", "0", False)):
        configs = [json.loads((run / "config.json").read_text()) for run in (evaluated[0], workdir)]
        for run, config, fingerprint in zip((tmp_path / "copy", workdir), configs, (one, other), strict=True):
            if run != workdir and not run.exists():
                shutil.copytree(evaluated[0], run)
            config["data"]["fingerprint"] = fingerprint
            (run / "config.json").write_text(json.dumps(config))
        done = call("report", tmp_path / "copy", workdir, "--clips=0", *output)
        if refused:
            assert f"data.fingerprint is {one} and {other}; compare runs on the same data" in error_of(done)
            assert not (tmp_path / "x.html").exists()
        else:
            assert done.returncode == 0, done.stderr


def test_changed_data_are_noticed(evaluated, tmp_path, monkeypatch):
    workdir = shutil.copytree(evaluated[1], tmp_path / "run")
    read = Dataset.record
    monkeypatch.setattr(Dataset, "record", lambda *arguments: {**read(*arguments), "id": b"another"})
    call("report", workdir, f"--output={tmp_path / 'x.html'}")
    assert "the data changed since the evaluation: clip" in (tmp_path / "x.html").read_text()


def test_files_of_different_evaluations_are_noticed(evaluated, tmp_path):
    workdir = shutil.copytree(evaluated[1], tmp_path / "run")
    result = json.loads((workdir / "eval.json").read_text())
    (workdir / "eval.json").write_text(json.dumps({**result, "top1": result["top1"] + 20}))
    call("report", workdir, f"--output={tmp_path / 'x.html'}", "--clips=0")
    assert "eval.json and scores.npz are of different evaluations" in (tmp_path / "x.html").read_text()
