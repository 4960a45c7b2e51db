"""A process that is killed at any moment loses nothing: ``make chaos`` kills more often, and the other commands too.

The processes end themselves by SIGKILL before or shortly after a file operation, chosen by a seed.
"""

import functools
import json
import shutil

import numpy as np
import pytest
import tiny_runs
from bench import save_untrained, snapshot, write_videos
from fleet import saved
from forks import Kill, command, counted, fork
from outcomes import CHAOS, survived

from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("kills")]

STEPS = 12
RUN = functools.partial(tiny_runs.run, devices=1, steps=STEPS, log_every=1)
# Moment -> operations that count, and the highest number of the one to end at.
MOMENTS = {
    "the start": (r"(?!batch)", 18),
    "a save": (r"\S+ .*/latest/.*tmp", 40),
    "a save of the best state": (r"\S+ .*/best/.*tmp", 40),
    "the deletion of an old checkpoint": (r"(shutil\.rmtree|os\.remove|os\.rmdir) (?!.*tmp)", 40),
    "an evaluation": ("batch val", 4),
    "any moment": ("", 200),
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A compilation cache of this file alone: a kill may damage an entry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The state and the steps in the log of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    assert fork(RUN, folder / "run", log=folder / "log") == 0, (folder / "log").read_text()
    return outcome(folder / "run")


def outcome(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return saved(workdir, STEPS), [(line["split"], line["step"]) for line in lines]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_again_and_again(moment, straight, tmp_path):
    rng = np.random.default_rng(sorted(MOMENTS).index(moment))
    pattern, last = MOMENTS[moment]
    wanted, done, lost, chains = 10 if CHAOS else 3, 0, [], 0
    assert straight[1] == sorted(straight[1], key=lambda line: (line[1], line[0])), "each step once, in order"
    while done < wanted:
        chains += 1
        assert chains <= 3 * wanted, f"only {done} kills in {chains - 1} runs"
        workdir, kills = tmp_path / str(chains) / "run", 0
        workdir.parent.mkdir()
        status = -9
        while status == -9:
            kill = Kill(pattern, int(rng.integers(1, last + 1)), float(rng.choice([0, rng.uniform(0, 0.02)])))
            status = fork(
                RUN, workdir, log=workdir.parent / "log", kill=kill if kills < 3 and done + kills < wanted else None
            )
            kills += status == -9
        assert status == 0, (workdir.parent / "log").read_text()
        if outcome(workdir) != straight:
            lost += [chains] * kills
        done += kills
        shutil.rmtree(workdir)
    survived(f"SIGKILL: {moment}", tries=done, lost=len(lost), test="test_kills.py -k again")
    assert not lost


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    config = moving_shapes.get_config("tsn_r18,4,smoke").to_dict()
    config["data"]["dir"] = str(folder / "data")
    return save_untrained(config, CLASSES, folder / "run")


@pytest.mark.skipif(not CHAOS, reason="only in `make chaos`")
@pytest.mark.parametrize("name", ["eval.py", "tools.export", "tools.robustness", "tools.prepare"])
def test_a_command_that_is_killed_succeeds_when_it_is_repeated(name, network, tmp_path):
    output = tmp_path / "output"
    videos = write_videos(tmp_path / "videos") if name == "tools.prepare" else None
    words = {
        "eval.py": ("eval", f"--checkpoint={network}", f"--workdir={output}"),
        "tools.export": ("export", f"--checkpoint={network}", f"--output={output / 'net.stablehlo'}", "--batch=1"),
        "tools.robustness": ("robustness", network, f"--output={output}", "--corruptions=occlusion", "--levels=1-2"),
        "tools.prepare": ("prepare", "configs/video_folder.py:tsn_r18,2", f"--root={videos}", f"--dir={output}"),
    }[name]
    if name == "tools.export":
        words += ("--format=stablehlo",)
    run = functools.partial(fork, command, *words, log=tmp_path / "log")
    inside = rf"\S+ .*{output.name}/"
    assert run() == 0, (tmp_path / "log").read_text()  # also prepares the clips of the network, and compiles
    shutil.rmtree(output)
    assert run(kill=Kill(inside, 0)) == 0
    expected, last = snapshot(output), counted(tmp_path / "log")
    assert expected
    rng, lost = np.random.default_rng(last), 0
    numbers = rng.choice(last, min(5, last), replace=False) + 1
    for number in numbers:
        shutil.rmtree(output)
        assert run(kill=Kill(inside, int(number))) == -9, (tmp_path / "log").read_text()
        assert run() == 0, (tmp_path / "log").read_text()
        lost += snapshot(output) != expected
    survived(f"SIGKILL: {name}", tries=len(numbers), lost=lost, test="test_kills.py -k repeated")
    assert lost == 0
