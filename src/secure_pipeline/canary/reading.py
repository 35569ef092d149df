"""What is asked of a metrics service about the slots of a target."""

from __future__ import annotations

from secure_pipeline.canary.counters import SlotSeries, key_of
from secure_pipeline.canary.metricnames import resolve
from secure_pipeline.canary.promql import matchers, with_slots
from secure_pipeline.canary.target import QueryRule, Target
from secure_pipeline.errors import ConfigError
from secure_pipeline.ports import Metrics, Series

_LATER = 120.0
"""Seconds that a question may come after the one that it belongs to."""


class Reader:
    """Asks about the slots of one target."""

    def __init__(self, target: Target, canary: str, metrics: Metrics) -> None:
        """``canary``: the slot under trial. Raises: ConfigError."""
        (baseline,) = set(target.slots) - {canary}
        self.target = target
        self.metrics = metrics
        self.names = resolve(target.metrics)
        self.slots = (canary, baseline)
        try:
            self._labels = {slot: matchers(target.slots[slot].labels) for slot in self.slots}
        except ValueError as error:
            raise ConfigError(f"slots: {error}", where=target.name) from None

    def read(self, slot: str, seconds: float) -> SlotSeries:
        """Read all series of a slot. Raises: Unavailable, Inconclusive."""
        labels, names = self.target.slots[slot].labels, self.names
        chosen = matchers(labels, {"__name__": "|".join(names.all)})
        series = self.metrics.samples(f"{{{chosen}}}", seconds)
        failed: tuple[Series, ...] = ()
        if names.errors:
            # Prometheus itself says which series match. Asked second and further back, so that
            # none is missing that the first answer holds.
            chosen = matchers(labels, names.errors)
            failed = self.metrics.samples(f"{names.requests}{{{chosen}}}", seconds + _LATER)
        return SlotSeries(names, series, frozenset(key_of(item) for item in failed))

    def expression(self, rule: QueryRule) -> str:
        """An own expression with the slots' label matchers put in."""
        return with_slots(rule.query, *(self._labels[slot] for slot in self.slots))
