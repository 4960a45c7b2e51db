"""One way to show how far a preparation is."""

import sys

from tqdm import tqdm


def progress_bar(total: int, *, label: str, done: int = 0) -> tqdm:
    """A bar on stderr that starts at ``done``; where that is a log file, a line every ten seconds."""
    return tqdm(total=total, initial=done, desc=label, mininterval=0.1 if sys.stderr.isatty() else 10)
