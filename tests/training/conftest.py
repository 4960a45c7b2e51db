"""Makes the helper of this folder importable: pytest's importlib mode puts no folder on the path."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
