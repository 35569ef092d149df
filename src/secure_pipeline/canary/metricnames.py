"""Which metrics are read of a service: the presets, and what a target names itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from secure_pipeline.canary.target import MetricNames, Preset
from secure_pipeline.errors import ConfigError


@dataclass(frozen=True)
class Names:
    """Names of the metrics that are read."""

    latency: str
    requests: str
    errors: Mapping[str, str]
    error_counter: str | None
    started: str

    @property
    def all(self) -> tuple[str, ...]:
        """Every name of a series, each once."""
        found = [*(self.latency + suffix for suffix in ("_bucket", "_sum", "_count"))]
        found += [
            self.requests,
            self.started,
            *([self.error_counter] if self.error_counter else []),
        ]
        return tuple(found)


def _preset(latency: str, finished: str, errors: Mapping[str, str], started: str) -> Names:
    return Names(latency, finished, MappingProxyType(dict(errors)), None, started)


_STARTED = "process_start_time_seconds"
PRESETS: Mapping[Preset, Names] = MappingProxyType(
    {
        Preset.INFERENCE_SERVICE: _preset(
            "inference_token_latency_seconds", "inference_requests_total", {"code": "5.."}, _STARTED
        ),
        # vllm:request_success_total counts what the engine finished: a server that answers
        # everything with 500 leaves it at rest. Its HTTP metrics group codes: "5xx".
        Preset.VLLM: _preset(
            "vllm:inter_token_latency_seconds", "http_requests_total", {"status": "5.."}, _STARTED
        ),
        Preset.VLLM_OLD: _preset(
            "vllm:time_per_output_token_seconds",
            "http_requests_total",
            {"status": "5.."},
            _STARTED,
        ),
        Preset.CUSTOM: _preset("", "", {}, ""),
    }
)


def resolve(names: MetricNames) -> Names:
    """The metrics that a target reads. Raises: ConfigError if two are one and the same."""
    base = PRESETS[names.preset]
    found = Names(
        latency=names.latency or base.latency,
        requests=names.requests or base.requests,
        errors=base.errors if names.errors is None else names.errors,
        error_counter=names.error_counter,
        started=names.started or base.started,
    )
    if len(set(found.all)) != len(found.all):
        raise ConfigError("two of the metrics are one and the same", where="metrics")
    return found
