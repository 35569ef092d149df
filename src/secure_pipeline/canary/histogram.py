"""A Prometheus histogram: how many observations are over a limit, and its percentiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from secure_pipeline.canary.model import Estimate


@dataclass(frozen=True)
class Histogram:
    """Observations by bucket. An edge belongs to the bucket below it (``le``)."""

    edges: tuple[float, ...]
    """Upper edges of the buckets, rising; the last one is infinite."""
    counts: tuple[float, ...]
    """Observations up to each edge."""

    def __post_init__(self) -> None:
        if not self.edges or self.edges[-1] != math.inf:
            raise ValueError("it has no bucket +Inf")
        if any(later <= earlier for earlier, later in pairwise(self.edges)):
            raise ValueError("its edges do not rise")
        if any(later < earlier for earlier, later in pairwise((0.0, *self.counts))):
            raise ValueError("a bucket holds less than one below it")

    @classmethod
    def of(cls, buckets: Mapping[float, float], count: float) -> Histogram:
        """The histogram of ``le`` to cumulative count. Raises: ValueError."""
        edges = tuple(sorted(buckets))
        found = cls(edges, tuple(buckets[edge] for edge in edges))
        if not math.isclose(found.total, count, rel_tol=1e-9):
            raise ValueError(f"its count is {count:g}, its bucket +Inf {found.total:g}")
        return found

    @property
    def total(self) -> float:
        """All observations."""
        return self.counts[-1]

    def over(self, limit: float) -> Estimate:
        """Observations over ``limit``: exact at an edge, else interpolated between two.

        Over the last finite edge nothing can be interpolated: the greatest number is taken.
        """
        low, high = self.around(limit)
        below, up_to = self._up_to(low), self._up_to(high)
        if low == high or high == math.inf:
            value = below
        else:
            value = below + (up_to - below) * (limit - low) / (high - low)
        least, most = self.total - up_to, self.total - below
        return Estimate(least, min(max(self.total - value, least), most), most)

    def around(self, limit: float) -> tuple[float, float]:
        """The edges next to a limit; both the same one where it is an edge. 0 is below the first.

        ``0.15``, ``0.150`` and a number that differs in the last digits are one edge.
        """
        low = 0.0
        for edge in self.edges:
            if math.isclose(edge, limit, rel_tol=1e-9):
                return edge, edge
            if edge > limit:
                return low, edge
            low = edge
        raise AssertionError("the last edge is infinite")

    def quantile(self, share: float) -> Estimate | None:
        """A percentile, interpolated between the edges of its bucket.

        None without observations, or over the last finite edge.
        """
        rank = share * self.total
        low, below = 0.0, 0.0
        for edge, count in zip(self.edges, self.counts, strict=True):
            if count >= rank and count > below:
                if edge == math.inf or edge < low:
                    return None
                value = low + (edge - low) * (rank - below) / (count - below)
                return Estimate(low, min(max(value, low), edge), edge)
            low, below = max(edge, 0.0), count
        return None

    def _up_to(self, edge: float) -> float:
        return 0.0 if edge == 0.0 else self.counts[self.edges.index(edge)]
