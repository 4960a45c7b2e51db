"""Markdown tables of the pages that the benchmarks write."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table with the first column aligned left and the others right.

    >>> print(markdown_table(("network", "top-1"), [("tsn_r18", "8.3")]))
    | network | top-1 |
    | --- | ---: |
    | tsn_r18 | 8.3 |
    """
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
