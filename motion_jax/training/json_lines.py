"""Files with one JSON object per line, which a kill may cut off."""

import json
import logging
from typing import Any

from etils import epath

_log = logging.getLogger(__name__)


def read(path: epath.Path) -> list[dict[str, Any]]:
    """Return the objects in a file, none without a file; a warning counts damaged lines, such as one cut off."""
    if not path.is_file():
        return []
    objects, damaged = [], 0
    for text in path.read_bytes().decode(errors="replace").splitlines():
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict):
            objects.append(content)
        else:
            damaged += 1
    if damaged:
        _log.warning("%s: %d damaged lines are ignored", path, damaged)
    return objects
