"""Hand an image over to a cluster, and wait for the verdict that the cluster signs."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.eventlistener import send_event
from secure_pipeline.adapters.http import Transport
from secure_pipeline.audit.recording import recorded
from secure_pipeline.errors import UsageError
from secure_pipeline.files import read_bounded
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.ports import SecretUse
from secure_pipeline.stages import handed_over
from secure_pipeline.stages.handed_over import STAGE, HandedOver
from secure_pipeline.stages.verify import VerifyInputs
from secure_pipeline.trigger import LIFETIME, MAX_SECRET, HandOver, Secret
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.stores import Stores, proxies_of
from secure_pipeline.wiring.verifying import VerifyTarget, verify_inputs

SECRET_VARIABLE = "SECURE_PIPELINE_HAND_OVER_SECRET"


@dataclass(frozen=True)
class HandOverRequest:
    """What to hand over, and where to."""

    image: VerifyTarget
    to: str
    """Address of the listener."""
    target: str
    secret_file: Path | None
    ca: Path | None
    """PEM of the authorities that the listener is trusted by, instead of the usual ones."""


class HandOvers:
    """One hand-over: sent once, then waited for."""

    def __init__(
        self, request: HandOverRequest, options: Options, world: World, stores: Stores
    ) -> None:
        """Make the event and open all that is needed. Raises: UsageError, ConfigError."""
        self._clock = SystemClock()
        self._request, self._options, self._world, self._stores = request, options, world, stores
        self._secret = _secret(request.secret_file, world)
        self._transport = Transport(
            self._clock, ca=request.ca, proxies=proxies_of(world.environment)
        )
        now = self._clock.now()
        self.event = HandOver(
            secrets.token_hex(16),
            ImageReference.parse(request.image.image or ""),
            request.target,
            request.to,
            now,
            now + LIFETIME,
        )

    def check(self) -> VerifyInputs:
        """What the verdict will be looked for with, before anything is sent.

        Raises: UsageError, ConfigError, Unavailable.
        """
        inputs = verify_inputs(self._request.image, self._options, self._world, self._stores)
        handed_over.look(inputs, self.event, self._clock)
        return inputs

    def send(self) -> str:
        """Send the event and return the listener's id of it. Raises: Unavailable, PolicyDenied."""
        now = self._clock.now()  # what was done since the event was made may have taken a while
        event = self.event = replace(self.event, issued=now, expires=now + LIFETIME)
        body = event.body()
        ledger = open_ledger(ledger_path(self._options, self._world))
        details = {"target": event.target, "to": event.audience, "run": event.run}
        use = SecretUse("promote", STAGE, str(event.image), None, details)
        with recorded(ledger, use) as ended:
            taken = send_event(event.audience, body, self._secret.sign(body), self._transport)
            ended["event"] = taken
        return taken

    def wait(self, inputs: VerifyInputs, seconds: float) -> HandedOver:
        """The verdict of the run. Raises: ConfigError, Unavailable, Inconclusive."""
        return handed_over.wait(inputs, self.event, self._clock, seconds, time.sleep)


def _secret(file: Path | None, world: World) -> Secret:
    """From a file or the environment, never from the command line, which everyone can see."""
    if file is not None:
        return Secret(read_bounded(world.directory / file, MAX_SECRET + 2).strip())
    value = world.environment.get(SECRET_VARIABLE)
    if not value:
        raise UsageError(
            "no secret is named to sign the event with",
            hint=f"--secret-file FILE, or {SECRET_VARIABLE} in the environment",
        )
    return Secret(value.encode().strip())
