"""How long until the program answers, beside the tools whose users would type it.

The commands take turns, so that whatever else the machine does meets all of them alike. What
counts is the ratio of medians within this one run; seconds of different machines do not compare.

    python bench/startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from secure_pipeline.wiring import locate_tool

RESULTS = Path(__file__).resolve().parent / "results"
REFERENCES = ("cosign version", "trivy --version")


def commands() -> dict[str, list[str]]:
    """Name to command line. Raises: Unavailable when a tool is not installed."""
    ours = str(Path(sys.executable).with_name("secure-pipeline"))
    return {
        "secure-pipeline --version": [ours, "--version"],
        "secure-pipeline --help": [ours, "--help"],
        "secure-pipeline scan --help": [ours, "scan", "--help"],
        "cosign version": [str(locate_tool("cosign").path), "version"],
        "trivy --version": [str(locate_tool("trivy").path), "--version"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }


def measure(lines: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Seconds of each run of each command, after one run that fills the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    with tempfile.TemporaryDirectory() as home:
        # Without configuration, caches or network proxies of whoever runs this.
        environment = {"PATH": os.environ["PATH"], "HOME": home, "TRIVY_CACHE_DIR": home}
        for turn in range(runs + 1):
            for name, argv in lines.items():
                started = time.perf_counter()
                subprocess.run(
                    argv, env=environment, cwd=home, check=True, capture_output=True, timeout=60
                )
                if turn:
                    seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    """Median and spread; times are skewed, so quartiles rather than a deviation."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "first_quartile": low, "third_quartile": high, "least": min(values)}


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each command's median as a multiple of those of the references."""
    return {
        name: {r: row["median"] / rows[r]["median"] for r in REFERENCES}
        for name, row in rows.items()
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures for people."""
    lines = [
        f"{'command':29}{'median':>9}{'quartiles':>17}"
        + "".join(f"{f'/ {r}':>19}" for r in REFERENCES)
    ]
    for name, of in ratios(rows).items():
        low, median, high = (
            rows[name][key] * 1000 for key in ("first_quartile", "median", "third_quartile")
        )
        quartiles = f"{low:.0f} to {high:.0f} ms"
        shares = "".join(f"{of[r]:19.2f}" for r in REFERENCES)
        lines.append(f"{name:29}{median:6.0f} ms{quartiles:>17}{shares}")
    return "\n".join(lines)


def write(rows: dict[str, dict[str, float]], seconds: dict[str, list[float]]) -> Path:
    """The figures and what they were measured on, as JSON."""
    now = datetime.now(UTC)
    document = {
        "bench": "startup",
        "time": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "summary": rows,
        "ratios": ratios(rows),
        "seconds": seconds,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"startup-{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def main() -> int:
    """Measure, print the table, write the document."""
    parser = argparse.ArgumentParser(description="Compare start-up times.")
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (at least 3)")
    seconds = measure(commands(), max(parser.parse_args().runs, 3))
    rows = {name: summary(values) for name, values in seconds.items()}
    print(table(rows))
    print(f"written: {write(rows, seconds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
