"""``secure-pipeline doctor``."""

from __future__ import annotations

from pathlib import Path

from secure_pipeline.cli._options import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    KeyOption,
    PolicyOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode


def doctor(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    key: KeyOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Say what is there, what is missing and what to type."""
    from secure_pipeline import wiring
    from secure_pipeline.doctor import Places

    output = Output(as_json=as_json)
    places = Places(Path.cwd(), config, policy, key, database)
    checks = wiring.doctor(places).examine()
    for check in checks:
        state = "ok" if check.ok else "MISSING" if check.needed else "absent"
        output.text(f"{state:8} {check.part:15} {check.found or check.problem}")
        if check.hint:
            output.text(f"{'':8} {'':15} hint: {check.hint}")
    ready = all(check.ok for check in checks if check.needed)
    output.text("ready for 'secure-pipeline run'" if ready else "not ready: see MISSING above")
    output.document(
        "Doctor",
        {
            "ready": ready,
            "checks": [
                {
                    "part": check.part,
                    "needed": check.needed,
                    "ok": check.ok,
                    "found": check.found,
                    "problem": check.problem,
                    "hint": check.hint,
                }
                for check in checks
            ],
        },
    )
    return ExitCode.PASS if ready else ExitCode.UNAVAILABLE
