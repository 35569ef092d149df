"""Sweeps and random cases: all of them with THOROUGH=1 (``make thorough``), else a part."""

from __future__ import annotations

import os
from collections.abc import Iterator

THOROUGH = os.environ.get("THOROUGH") == "1"
STRIDE = 7


def sweep(first: int, limit: int) -> Iterator[int]:
    """Each point; or each of the first STRIDE ones, where work begins, and then every STRIDE-th."""
    yield from (n for n in range(first, limit) if THOROUGH or n < STRIDE or n % STRIDE == 0)


def times(all_of_them: int, some: int) -> int:
    """How many random cases there are, or how much a sweep has to find."""
    return all_of_them if THOROUGH else some
