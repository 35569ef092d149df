"""Delivery of the ledger: where to, with which token, and in the background of a run."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from secure_pipeline.errors import ExitCode, PipelineError, VerificationFailed
from secure_pipeline.wiring.destinations import ShipOptions, open_sink

if TYPE_CHECKING:
    from secure_pipeline.audit.delivery import Progress
    from secure_pipeline.audit.ledgerfiles import LedgerFile
    from secure_pipeline.wiring.options import Options, World

_PATIENCE = 300.0
"""Seconds to wait for an acknowledgement, at most; half the deadline, so that there is time to
send again what a collector lost."""
_GRACE = 1.0
"""Seconds that the end of a run waits for a cursor that is just being written."""
MAX_COUNTED = 10_000
_LOOK = 1.0
"""Seconds between two looks at the ledger in the background."""
_FOREVER = 10 * 365 * 86400.0


@dataclass
class Shipped:
    """What came of one delivery."""

    destination: str
    acknowledged: int = 0
    waiting: int = 0
    again: int = 0
    done: bool = False
    last: int | None = None
    """Number of the last entry of the present ledger that is acknowledged."""
    trouble: PipelineError | None = None

    @property
    def code(self) -> ExitCode:
        """0 only if everything is acknowledged."""
        if self.done:
            return ExitCode.PASS
        if self.waiting:
            return ExitCode.INCONCLUSIVE
        return ExitCode.UNAVAILABLE

    def add(self, progress: Progress, done: bool) -> None:
        """Count what came of one ledger."""
        self.acknowledged += progress.acknowledged
        self.waiting, self.again = progress.waiting, self.again + progress.again
        self.last = progress.position.sequence if progress.position else None
        self.trouble, self.done = progress.trouble, done


class Shipper:
    """Delivers one ledger, with those sealed before it, to one destination."""

    def __init__(self, path: Path, ship: ShipOptions, environment: Mapping[str, str]) -> None:
        """Raises: UsageError, ConfigError, Unavailable (plain http to another machine)."""
        from secure_pipeline.audit.spool import Spool

        self.path = path
        self._ship = ship
        self._sink, self.destination = open_sink(ship, environment)
        self._unclear = False
        """A delivery ended with batches that were not acknowledged."""
        self.spool = Spool(path.with_name(f"{path.name}.shipped"), self.destination)

    def ship(
        self,
        *,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        deadline: float | None = None,
    ) -> Shipped:
        """Deliver until everything is acknowledged, or for ``deadline`` seconds.

        Raises: VerificationFailed once what precedes it is delivered; Refused, Inconclusive,
        ConfigError, Unavailable, Held.
        """
        from secure_pipeline.audit.delivery import Delivery, DeliveryLimits, drive
        from secure_pipeline.audit.ledgerfiles import ledgers

        seconds = self._ship.deadline if deadline is None else deadline
        until = time.monotonic() + seconds
        result = Shipped(self.destination)
        with self._held(until, stopped, sleep):
            found = ledgers(self.path)
            for ledger in found:
                delivery = Delivery(
                    ledger,
                    self._sink,
                    self.spool.cursor(ledger.origin),
                    now=time.monotonic,
                    jitter=random.SystemRandom().random,
                    limits=DeliveryLimits(acknowledge=self._patience(seconds)),
                    begin=self._ship.begin if ledger is found[-1] else None,
                )
                if self._unclear:
                    self._sink.renew()
                self._unclear = True
                done = drive(
                    delivery, now=time.monotonic, sleep=sleep, until=until, stopped=stopped
                )
                self._unclear = not done
                result.add(delivery.progress, done)
                if not done:
                    return result
            self._check_nothing_gone(found)
        result.done = True
        return result

    def _patience(self, seconds: float) -> float:
        """Seconds to wait for an acknowledgement in a delivery of so many seconds."""
        patience = min(_PATIENCE, max(10.0, seconds / 2))
        return max(patience, self._ship.window + 30.0) if self._ship.without_ack else patience

    def undelivered(self) -> int:
        """How many entries are not acknowledged, at most ``MAX_COUNTED`` + 1.

        Raises: VerificationFailed, ConfigError, Inconclusive.
        """
        from secure_pipeline.audit.delivery import after
        from secure_pipeline.audit.ledgerfiles import ledgers

        count = 0
        for ledger in ledgers(self.path):
            position = self.spool.cursor(ledger.origin).load()
            count += sum(1 for _ in islice(after(ledger, position), MAX_COUNTED + 1 - count))
        return count

    def _check_nothing_gone(self, found: tuple[LedgerFile, ...]) -> None:
        """A ledger that was delivered before must be here, or named by the one after it."""
        known = {item.origin for item in found} | {item.previous for item in found}
        for cursor in self.spool.cursors():
            if cursor.ledger not in known:
                raise VerificationFailed(
                    f"ledger {cursor.ledger[:16]}, of which entries were delivered, is not here",
                    where=str(self.path),
                    hint=f"if it was taken away on purpose, remove {cursor.path}",
                )

    @contextmanager
    def _held(
        self, until: float, stopped: Callable[[], bool], sleep: Callable[[float], None]
    ) -> Iterator[None]:
        """Be the only one that delivers there, after waiting for another one that does."""
        from secure_pipeline.audit.spool import Held

        while True:
            try:
                with self.spool.held():
                    yield
                    return
            except Held:
                if stopped() or time.monotonic() >= until:
                    raise
            sleep(0.2)


class Background:
    """Delivers while a run goes on; never fails it, never keeps it waiting."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self._stop = threading.Event()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="audit-ship", daemon=True)
        self._thread.start()

    def end(self) -> str | None:
        """Stop; what is left and what to type, or None if nothing is."""
        self._stop.set()
        self._thread.join(_GRACE)
        try:
            left = self._shipper.undelivered()
        except Exception as error:
            return f"audit entries: {_words(error)}; secure-pipeline audit ship"
        trouble = self._trouble
        if not left:
            alarm = isinstance(trouble, VerificationFailed)
            return f"audit entries: {_words(trouble)}" if trouble and alarm else None
        reason = f" ({_words(trouble)})" if trouble else ""
        many = f"more than {MAX_COUNTED}" if left > MAX_COUNTED else str(left)
        return (
            f"{many} audit entries are not acknowledged yet by {self._shipper.destination}"
            f"{reason}; deliver them with: secure-pipeline audit ship"
        )

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                result = self._shipper.ship(
                    stopped=self._stop.is_set, sleep=self._sleep, deadline=_FOREVER
                )
                self._trouble = result.trouble
            except Exception as error:
                self._trouble = error
                self._stop.wait(10 * _LOOK)
            self._stop.wait(_LOOK)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)


def open_shipper(options: Options, ship: ShipOptions, world: World) -> Shipper:
    """What delivers the ledger that a command line means. Raises: UsageError, ConfigError."""
    from secure_pipeline.wiring.auditing import ledger_path

    return Shipper(ledger_path(options, world), ship, world.environment)


@contextmanager
def shipping(options: Options, world: World, warn: Callable[[str], None]) -> Iterator[None]:
    """Deliver in the background, if the environment names a destination; say what is left."""
    ship = ShipOptions.of(world.environment)
    if ship.to is None:
        yield
        return
    background = None
    try:
        background = Background(open_shipper(options, ship, world))
    except Exception as error:
        warn(f"audit entries are not delivered: {_words(error)}")
    try:
        yield
    finally:
        line = background.end() if background else None
        if line:
            warn(line)


def _words(error: BaseException) -> str:
    """An error in one line; one that is no error of ours only by its kind."""
    return str(error) if isinstance(error, PipelineError) else type(error).__name__
