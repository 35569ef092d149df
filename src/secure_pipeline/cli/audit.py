"""``secure-pipeline audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from secure_pipeline.cli import _ledger, auditship
from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, Inconclusive, UsageError

app = typer.Typer(
    help="The ledger: what was done with keys, by whom, and proof that nothing was changed.",
    no_args_is_help=True,
)
MAX_SHOWN = 10_000


@app.command()
def verify(
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor",
            help="Signed heads kept elsewhere: a file, layout:DIR[@sha256:DIGEST] or "
            "HOST/NAME@sha256:DIGEST. They show a tail that was cut off.",
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="Public key (PEM) of the anchors; the policy's by default."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Check the sealed ledgers before this one too.")
    ] = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    policy: PolicyOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Check every entry and link; name the first one that is wrong."""
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.auditing import AuditRequest
    from secure_pipeline.wiring.options import Options, RegistryOptions

    output = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, state=state, policy=policy, registry=registry, ledger=ledger)
    request = AuditRequest(tuple(anchor or ()), tuple(key or ()), history)
    results = open_audit(options).verify(request)
    for item in results:
        _ledger.show_checked(output, item)
    codes = [item.exit_code for item in results]
    code = next((c for c in codes if c is ExitCode.VERIFICATION), max(codes))
    if code is ExitCode.PASS:
        output.text("verified" if anchor else "verified, but for a tail that may be missing")
        if not anchor:
            output.text("hint: --anchor FILE or IMAGE shows whether entries were cut off")
    output.document(
        "Ledger", {"ledgers": [_ledger.document(item) for item in results], "exitCode": int(code)}
    )
    return code


@app.command()
def show(
    run: Annotated[str | None, typer.Option("--run", help="Only of this run.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Only of this stage.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only from this RFC 3339 time or date on.")
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Show entries, one a line; the chain is checked on the way."""
    from secure_pipeline.audit.export import Selection, select
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.options import Options

    output = Output(as_json=as_json)
    path = open_audit(Options(config=config, state=state, ledger=ledger)).path
    shown: list[dict[str, Any]] = []
    for stored, item in select(path, Selection(run, stage, _ledger.moment(since))):
        if not as_json:
            output.text(_ledger.line(stored.seq, item))
            continue
        if len(shown) == MAX_SHOWN:
            raise Inconclusive(
                f"more than {MAX_SHOWN} entries",
                hint="secure-pipeline audit export --format jsonl",
            )
        shown.append({"id": stored.hash, "entry": json.loads(stored.data)})
    output.document("LedgerEntries", {"ledger": str(path), "entries": shown})
    return ExitCode.PASS


@app.command()
def export(
    form: Annotated[
        str, typer.Option("--format", help="jsonl (the ledger's own lines) or ocsf.")
    ] = "jsonl",
    start: Annotated[int, typer.Option("--from", min=0, help="First entry, by number.")] = 0,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
) -> ExitCode:
    """Write entries to stdout, one JSON document a line."""
    import sys

    from secure_pipeline.audit.export import as_jsonl, as_ocsf
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.options import Options

    forms = {"jsonl": as_jsonl, "ocsf": as_ocsf}
    if form not in forms:
        raise UsageError(f"{form[:40]!r} is no format", hint="--format jsonl, or --format ocsf")
    path = open_audit(Options(config=config, state=state, ledger=ledger)).path
    for line in forms[form](path, start):
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
    return ExitCode.PASS


@app.command()
def recover(
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Move a torn tail aside and record it now; the next entry would do the same."""
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.options import Options

    output = Output(as_json=as_json)
    log = open_audit(Options(config=config, state=state, ledger=ledger)).ledger()
    moved = log.recover()
    output.text("the torn tail was moved aside" if moved else "there is no torn tail")
    output.document("LedgerRecovery", {"ledger": str(log.path), "moved": moved})
    return ExitCode.PASS


@app.command()
def rotate(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Seal a ledger that does not verify, as it is.")
    ] = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Seal the ledger and begin a new one that commits to it."""
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.options import Options

    output = Output(as_json=as_json)
    options = Options(config=config, state=state, ledger=ledger)
    sealed = open_audit(options).rotate(reason, damaged=damaged)
    output.text(f"sealed {sealed}")
    output.document("LedgerRotation", {"sealed": str(sealed), "damaged": damaged})
    return ExitCode.PASS


@app.command()
def checkpoint(
    key: Annotated[
        str,
        typer.Option(
            "--key", help="Key that signs the head: file:release.key.", envvar="SECURE_PIPELINE_KEY"
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--to", help="File that it is added to.", envvar="SECURE_PIPELINE_LEDGER_ANCHOR"
        ),
    ],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Sign the ledger's present head and keep it in a file elsewhere."""
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.options import Options

    output = Output(as_json=as_json)
    audit = open_audit(Options(config=config, state=state, ledger=ledger))
    head = audit.take_head(key, to)
    output.text(f"{to}: entry {head.seq}, {head.hash}")
    output.document("LedgerHead", {"origin": head.origin, "seq": head.seq, "hash": head.hash})
    return ExitCode.PASS


app.command()(auditship.ship)
