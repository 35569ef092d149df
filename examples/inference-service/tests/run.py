"""Run the tests with coverage and write both reports: reports/junit.xml, reports/coverage.xml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """The exit code of the tests, or of the coverage report when the tests passed."""
    os.chdir(ROOT)
    shutil.rmtree("reports", ignore_errors=True)  # an old report must not pass for a new one
    Path("reports").mkdir()
    coverage = [sys.executable, "-m", "coverage"]
    tests = subprocess.run(
        [*coverage, "run", "-m", "pytest", "--junitxml=reports/junit.xml", *sys.argv[1:]],
        check=False,
    )
    report = subprocess.run([*coverage, "xml", "-o", "reports/coverage.xml"], check=False)
    subprocess.run([*coverage, "report"], check=False)
    return tests.returncode or report.returncode


if __name__ == "__main__":
    sys.exit(main())
