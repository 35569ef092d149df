"""``secure-pipeline audit ship``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import ConfigOption, JsonOption, LedgerOption, StateOption
from secure_pipeline.cli._output import Output, print_error
from secure_pipeline.errors import ExitCode, Inconclusive, PipelineError, Unavailable, UsageError

if TYPE_CHECKING:
    from secure_pipeline.wiring.shipping import Shipped, Shipper

_HINT = "secure-pipeline audit ship, when it can be reached"


def ship(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="splunk+https://HOST:8088, https://HOST/PATH or syslog+tls://HOST:6514.",
            envvar="SECURE_PIPELINE_AUDIT_TO",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="File of the token; else SECURE_PIPELINE_AUDIT_TOKEN holds it.",
            envvar="SECURE_PIPELINE_AUDIT_TOKEN_FILE",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--audit-ca",
            help="PEM file of the authorities to trust instead of the usual ones.",
            envvar="SECURE_PIPELINE_AUDIT_CA",
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            help="Splunk's index; the token's own by default.",
            envvar="SECURE_PIPELINE_AUDIT_INDEX",
        ),
    ] = None,
    without_ack: Annotated[
        bool,
        typer.Option(
            "--without-ack",
            help="Accept a destination that never says whether it stored anything.",
            envvar="SECURE_PIPELINE_AUDIT_WITHOUT_ACK",
        ),
    ] = False,
    confirm: Annotated[
        str,
        typer.Option(
            "--confirm-window",
            help="--without-ack: how long it must be healthy after taking entries.",
        ),
    ] = "30s",
    deadline: Annotated[
        str, typer.Option("--deadline", help="Longest time for one delivery.")
    ] = "2m",
    begin: Annotated[
        int | None,
        typer.Option("--from", min=0, help="Deliver again from this entry's number on."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on for ever: deliver what is added.")
    ] = False,
    interval: Annotated[
        str, typer.Option("--interval", help="--watch: time between two looks.")
    ] = "5s",
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Deliver the ledger's entries; done when all of them are acknowledged."""
    from secure_pipeline.wiring import open_shipper
    from secure_pipeline.wiring.destinations import ShipOptions
    from secure_pipeline.wiring.options import Options

    if watch and (begin is not None or as_json):
        raise UsageError("--watch takes neither --from nor --json", hint="leave one of them out")
    asked = ShipOptions(
        to=to, token_file=token_file, ca=ca, index=index, without_ack=without_ack,
        window=_seconds(confirm, "--confirm-window 30s"),
        deadline=_seconds(deadline, "--deadline 2m"), begin=begin,
    )  # fmt: skip
    if without_ack and asked.window >= asked.deadline:
        raise UsageError(
            "--confirm-window is not shorter than --deadline", hint="--deadline 10m, for instance"
        )
    shipper = open_shipper(Options(config=config, state=state, ledger=ledger), asked)
    if not shipper.path.exists() and not shipper.spool.cursors():
        raise Inconclusive(
            "there is no ledger", where=str(shipper.path), hint="name it with --ledger"
        )
    output = Output(as_json=as_json)
    if watch:
        return _watch(output, shipper, _seconds(interval, "--interval 5s"))
    return _once(output, shipper)


def _once(output: Output, shipper: Shipper) -> ExitCode:
    found = shipper.ship()
    output.text(_line(found))
    if error := _failure(found, shipper):
        print_error(error)
    output.document("LedgerDelivery", _document(found))
    return found.code


def _watch(output: Output, shipper: Shipper, interval: float) -> ExitCode:
    """Deliver again and again, until interrupted or something needs a person."""
    import time

    said = ""
    while True:
        try:
            found = shipper.ship()
            error = _failure(found, shipper)
        except Unavailable as failure:
            found, error = None, failure
        if found is not None and found.acknowledged:
            output.text(_line(found))
        if error is not None and str(error) != said:
            print_error(error)
        said = str(error) if error else ""
        time.sleep(interval)


def _line(found: Shipped) -> str:
    last = "" if found.last is None else f", up to entry {found.last}"
    again = f"; {found.again} had to be sent again" if found.again else ""
    return f"{found.destination}: {found.acknowledged} entries acknowledged{last}{again}"


def _failure(found: Shipped, shipper: Shipper) -> PipelineError | None:
    """Why not everything is acknowledged: taken but not indexed, or not even reached."""
    if found.done:
        return None
    reason = f": {found.trouble.message}" if found.trouble else ""
    if found.waiting:
        return Inconclusive(
            f"{found.waiting} entries were taken and not acknowledged in time{reason}",
            where=found.destination,
            hint="secure-pipeline audit ship --deadline 10m sends them again, under the same ids",
        )
    return Unavailable(f"not everything was sent{reason}", where=found.destination, hint=_HINT)


def _document(found: Shipped) -> dict[str, Any]:
    return {
        "destination": found.destination,
        "acknowledged": found.acknowledged,
        "waiting": found.waiting,
        "sentAgain": found.again,
        "lastAcknowledged": found.last,
        "exitCode": int(found.code),
    }


def _seconds(text: str, example: str) -> float:
    from secure_pipeline.stages.running_watch import parse_interval

    try:
        return parse_interval(text).total_seconds()
    except UsageError:
        raise UsageError(f"{text[:40]!r} is no time from 1s to 24h", hint=example) from None
