"""A block added by exactly docs/add_a_motion_block.md, one file and one line, works in every command."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from bench import ROOT, environment

from motion_jax.profiling.operations import count

PAGE = (ROOT / "docs" / "add_a_motion_block.md").read_text()
WRITE, NAME, BUILD, DECLARE, *_ = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(ROW,) = re.findall(r"^MODELS\[.*$", NAME, flags=re.MULTILINE)
(FILE,) = re.findall(r"Create a file such as `(.*)`", PAGE)
MODEL = "framediff_tsm_r18"

# Library, config, weights and tools, in one process.
USE = f"""
import contextlib, io, json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
import motion_jax
from motion_jax.blocks.frame_difference import FrameDifference
from motion_jax.configs import moving_shapes
from motion_jax.experiment import Experiment
from motion_jax.tools import complexity, doctor, export, import_weights, models, report, rows
from motion_jax.weights import load_exported
from motion_jax.weights.save import save_safetensors, torch_state_dict

def call(tool, *arguments):
    sys.argv = [tool.__name__, *arguments, "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            tool.main()
        except SystemExit as done:
            assert not done.code, (tool, done.code)
    return json.loads(out.getvalue().splitlines()[-1])

assert {MODEL!r} in motion_jax.list_models()
model = motion_jax.build_model({MODEL!r}, num_classes=12, width=8, dropout=0.0)
assert type(model.backbone.blocks["res3"]) is FrameDifference
assert Experiment.from_config(moving_shapes.get_config("{MODEL},4,smoke").to_dict()).model.build(12) == model

run = motion_jax.experiment.load_trained("runs/mine")
variables = {{name: run.restored.variables[name] for name in ("params", "batch_stats")}}
difference = variables["params"]["backbone"]["blocks_res3"]["bn2"]["scale"]
assert np.abs(difference).max() > 0, "the block has been trained from its scale of zero"

def same(found):
    jax.tree.map(np.testing.assert_array_equal, found, variables)

save_safetensors("ours.safetensors", variables)
same(motion_jax.load_torch("ours.safetensors", model))
tensors = torch_state_dict(model, variables, prefix="module.base_model.")
assert "module.base_model.blocks.res3.conv1.weight" in tensors
same(motion_jax.load_torch(tensors, model))
imported = call(import_weights, "ours.safetensors", "--config=configs/moving_shapes.py:{MODEL},4,smoke",
                "--workdir=runs/imported")
assert imported["counts"] == {{"loaded": len(jax.tree.leaves(variables))}}

for format_ in ("safetensors", "stablehlo"):
    written = call(export, "--checkpoint=runs/mine", f"--format={{format_}}", f"--output=net.{{format_}}", "--batch=2")
    assert written["difference"] < 1e-4
logits = load_exported("net.safetensors").predict(np.zeros((1, 8, 32, 32, 3), np.uint8))
assert logits.shape == (1, 12)

counted = call(complexity, {MODEL!r}, "--no-xla", "--frames=2", "--size=32")
assert counted["traced"] == ["res3_motion"] and counted["stages"]["res3_motion"]["gflops"] > 0
assert models.describe({MODEL!r})["block"] == rows.describe_model({MODEL!r})["block"] == "FrameDifference"
assert rows.describe_model({MODEL!r})["traced"]
(reported,) = call(report, "runs/mine")["runs"]
assert reported["clips"] == 24
# The doctor checks operations and the papers' blocks: its first two checks stand for all.
make_checks = doctor.make_checks
doctor.make_checks = lambda: make_checks()[:2]
assert call(doctor)["healthy"]
print("all of it")
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with the page's file and the page's line."""
    root = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "motion_jax", root / "motion_jax", ignore=ignore)
    for name in ("data", "configs"):
        shutil.copytree(ROOT / name, root / "motion_jax" / name, ignore=ignore)
    (root / "configs").symlink_to(ROOT / "configs")
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, root)
    (root / FILE).write_text(WRITE)
    with (root / "motion_jax" / "models" / "table.py").open("a") as table:
        table.write(f"\n\nfrom motion_jax.blocks.frame_difference import FrameDifference\n\n{ROW}\n")
    return root


def succeed(checkout, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{arguments} exits with {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.long
def test_every_command_takes_the_block(checkout):
    succeed(checkout, "train.py", f"--config=configs/moving_shapes.py:{MODEL},8,smoke", "--workdir=runs/mine")
    evaluated = succeed(checkout, "eval.py", "--workdir=runs/mine", "--json")
    assert json.loads(evaluated.splitlines()[-1])["clips"] == 24
    (checkout / "use.py").write_text(USE)
    assert succeed(checkout, "use.py").splitlines()[-1] == "all of it"


def test_the_declarations_of_the_page():
    """The declared cost of the example is what its trace would count, and its official names are used."""
    namespace = {}
    exec(WRITE + DECLARE, namespace)
    block, shape = namespace["PositionProducts"](), (3, 5, 7, 4)
    stated = count(block, shape)
    assert stated.operations.correlation == 3 * 35**2 * 4
    namespace["PositionProducts"].operations = None
    assert count(block, shape).operations == stated.operations
    assert block.official_names.official("conv2") == "motion.conv2"
    x = np.ones((1, *shape), np.float32)
    variables = jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False))
    assert set(variables["params"]) == {"conv1", "bn1", "conv2", "bn2"}
