"""One way to show how far a preparation is."""

import sys

from tqdm import tqdm


def progress_bar(total: int, *, label: str) -> tqdm:
    """A bar on stderr; where that is a log file, a line every ten seconds."""
    return tqdm(total=total, desc=label, mininterval=0.1 if sys.stderr.isatty() else 10)
