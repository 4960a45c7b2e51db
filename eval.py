"""Evaluate a trained network. The command is motion_jax/tools/eval.py; python eval.py --help describes it."""

import sys

try:
    from motion_jax.cli import run
    from motion_jax.tools.eval import main
except ModuleNotFoundError as error:
    missing = error.name.removesuffix(".configs").removesuffix(".data")  # parts of motion_jax only when installed
    cure = "run pip install -r requirements.txt (or pip install -e .)"
    print(f"eval.py: error: {missing} is not installed; {cure}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    run(main)
