"""Records reports of the real Trivy for the tests of the parser.

Run with the project's Python from the top of the repository:

    PYTHONPATH=tests python tests/golden/trivy/generate.py

What changes with every scan (report id, times, temporary paths) is set to fixed values.
"""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

from fakes.images import (
    AWS_KEY,
    GITHUB_TOKEN,
    PRIVATE_KEY,
    Layer,
    build_image,
    debian,
    python_package,
)
from secure_pipeline.data import data_path
from secure_pipeline.tools.demodb import write
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Command, Processes

HERE = Path(__file__).parent
ADVISORIES = data_path("tools") / "go" / "demodb" / "advisories.json"
UNKNOWN_OS = Layer({"etc/os-release": b"ID=lunix\n"} | python_package("urllib3", "1.26.0"))
IMAGES: dict[str, list[Layer | str]] = {
    "debian": [
        debian({"openssl": "3.0.9-1", "shadow": "1:4.13+dfsg1-1", "coreutils": "9.1-1"}),
        Layer({"root/.ssh/id_rsa": PRIVATE_KEY, "app/.env": AWS_KEY}),
        Layer(deleted=["root/.ssh/id_rsa"], created_by="RUN rm /root/.ssh/id_rsa"),
        Layer(python_package("urllib3", "1.26.0")),
    ],
    "unknown-os": [UNKNOWN_OS],
    "empty": [Layer({"hello": b"hello\n"})],
}
SETTINGS = {"User": "root", "Env": [f"GITHUB_TOKEN={GITHUB_TOKEN}"]}


def record(entries: list[Layer | str], work: Path) -> dict[str, Any]:
    """Scan an image of these layers and return the report."""
    processes = Processes(threading.Event())
    trivy, demodb = locate("trivy"), locate("demodb")
    write(ADVISORIES, work / "cache" / "db", demodb, processes)
    digest = build_image(work / "image", entries, settings=SETTINGS).digest
    outcome = processes.run(
        Command(
            argv=(
                *(str(trivy.path), "image", "--input", f"{work / 'image'}@{digest}"),
                *("--cache-dir", str(work / "cache"), "--format", "json"),
                *("--scanners", "vuln,secret", "--image-config-scanners", "misconfig,secret"),
                *("--skip-db-update", "--skip-java-db-update", "--skip-check-update"),
                *("--skip-version-check", "--disable-telemetry", "--offline-scan", "--quiet"),
            ),
            cwd=work,
            env={"HOME": str(work)},
            timeout=120,
            network=False,
        )
    )
    assert outcome.ok, outcome.tail()
    text = outcome.stdout.decode().replace(str(work), "/scan").replace(GITHUB_TOKEN, "removed")
    report: dict[str, Any] = json.loads(text, object_hook=_still)
    return report


def _still(value: dict[str, Any]) -> dict[str, Any]:
    """Give every member that changes with time or place a fixed value."""
    changing = {"ReportID", "CreatedAt", "UID", "Fingerprint"} & value.keys()
    return value | dict.fromkeys(changing, "0")


def main() -> None:
    """Write all files."""
    for name, entries in IMAGES.items():
        with tempfile.TemporaryDirectory() as temporary:
            report = record(entries, Path(temporary))
        (HERE / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
