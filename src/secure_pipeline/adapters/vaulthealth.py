"""What a Vault server says about itself before it is asked for anything (VLT-09)."""

from __future__ import annotations

from collections.abc import Callable

from secure_pipeline.adapters.vaultwire import VaultWire
from secure_pipeline.errors import Unavailable

_SERVING = {200, 429, 473}
"""Standbys pass requests on, or redirect to a node that then has to be a configured peer."""
_SOON = {474, 500, 502, 503, 504}
"""States that end by themselves, or by an operator who is unsealing."""
STATES = {
    200: ("is active", ""),
    429: ("is a standby and passes requests on to the active node", ""),
    472: (
        "is the secondary of a disaster recovery pair, which serves nobody",
        "set VAULT_ADDR to the primary",
    ),
    473: ("is a performance standby and serves what it can", ""),
    474: (
        "is a standby that cannot reach the active node",
        "wait for the election, or look at the cluster's network",
    ),
    501: ("is not initialised", "vault operator init"),
    503: ("is sealed", "vault operator unseal"),
    530: ("was removed from its cluster", "set VAULT_ADDR to a node that is in the cluster"),
}
"""Status of /sys/health to what it means and what to do (developer.hashicorp.com/vault/api-docs
/system/health)."""
_PAUSE = 0.25


def require_health(wire: VaultWire, sleep: Callable[[float], None]) -> int:
    """Return the status of a server that serves, having waited ``patience`` seconds for it.

    Raises: Unavailable with the state's own message.
    """
    clock = wire.transport.clock
    until = clock.monotonic() + wire.server.patience
    attempt = 0
    while True:
        status = wire.status("/v1/sys/health")
        if status in _SERVING:
            return status
        pause = min(2.0, _PAUSE * 2.0**attempt)
        if status not in _SOON or clock.monotonic() + pause >= until:
            raise _unhealthy(wire, status)
        sleep(pause)
        attempt += 1


def _unhealthy(wire: VaultWire, status: int) -> Unavailable:
    meaning, hint = STATES.get(
        status, (f"answers {status} to a question about its health", "look at Vault's log")
    )
    return Unavailable(f"Vault {meaning}", where=wire.server.address, hint=hint)
