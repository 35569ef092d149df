"""``secure-pipeline run`` beside a serial shell script of the same tools, in one session.

Both start from the same commit of the sample, the same base image and the same database.
"cold" has an empty build storage and no evidence to reuse; "again" repeats it with nothing
changed. The ratio is what counts: the machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PASSWORD = "only for the bench"

SCRIPT = r"""
set -eu
"$SEMGREP" scan --json --metrics=off --disable-version-check --config "$RULES" . \
    > "$OUT/semgrep.json"
python3 tests/run.py > "$OUT/tests.log"
(cd "$BASES" && buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver overlay \
    pull -q --signature-policy "$STORE/policy.json" oci:debian-base > /dev/null)
buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver overlay \
    build -q --pull-never --layers --format oci --network none --runtime runc --timestamp 0 \
    --signature-policy "$STORE/policy.json" --cgroup-manager cgroupfs --target runtime \
    -f "$OUT/Dockerfile" \
    --iidfile "$OUT/iid" . > "$OUT/build.log"
rm -rf "$OUT/image"
buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver overlay \
    push -q --signature-policy "$STORE/policy.json" "$(cut -d: -f2 "$OUT/iid")" "oci:$OUT/image:x"
"$TRIVY" image --input "$OUT/image" --cache-dir "$CACHE" --skip-db-update --skip-java-db-update \
    --skip-version-check --disable-telemetry --offline-scan --scanners vuln,secret,misconfig \
    --format json --list-all-pkgs --output "$OUT/trivy.json" -q
"$TRIVY" convert --format cyclonedx --output "$OUT/cdx.json" "$OUT/trivy.json" -q
"$TRIVY" convert --format spdx-json --output "$OUT/spdx.json" "$OUT/trivy.json" -q
for statement in semgrep.json tests.log build.log trivy.json cdx.json spdx.json iid; do
    "$COSIGN" sign-blob --yes --use-signing-config=false --tlog-upload=false --key "$KEY" \
        --bundle "$OUT/$statement.bundle" "$OUT/$statement" > /dev/null 2>&1
    "$COSIGN" verify-blob --insecure-ignore-tlog --key "$PUBLIC" \
        --bundle "$OUT/$statement.bundle" "$OUT/$statement" > /dev/null 2>&1
done
"""


def pipeline(*arguments: str, cwd: Path, environment: dict[str, str]) -> None:
    """Run our program; a failure ends the bench."""
    subprocess.run(
        [sys.executable, "-m", "secure_pipeline", *arguments],
        cwd=cwd, env=environment, check=True, capture_output=True,
    )  # fmt: skip


def prepare(work: Path, environment: dict[str, str]) -> Path:
    """A committed copy of the sample, a base, a key and a policy."""
    service = work / "service"
    ignored = shutil.ignore_patterns(".secure-pipeline", "reports", "__pycache__")
    shutil.copytree(ROOT / "examples/inference-service", service, ignore=ignored)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
        subprocess.run(["git", *identity, *command], cwd=service, check=True)
    base = ROOT / ".bench" / "debian-base"
    pipeline("base", "debian", "--include", "python3,python3-prometheus-client",
             "--output", str(base), cwd=work, environment=environment)  # fmt: skip
    (work / "bases").mkdir()
    (work / "bases/debian-base").symlink_to(base)
    pipeline("keys", "generate", "--output", str(work / "release"), cwd=work,
             environment=environment)  # fmt: skip
    shutil.copy(ROOT / "examples/demo-policy.yaml", work / "release.yaml")
    return service


def located(name: str, environment: dict[str, str]) -> str:
    """Absolute path of an installed tool."""
    program = (
        "import sys; from secure_pipeline.wiring import locate_tool; "
        "print(locate_tool(sys.argv[1]).path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], env=environment, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return done.stdout.strip()


def shell(work: Path, service: Path, environment: dict[str, str]) -> dict[str, str]:
    """Variables of the script: the same tools, its own storage, the same database."""
    out, store = work / "shell", work / "storage"
    out.mkdir()
    store.mkdir()
    (store / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    text = (service / "Dockerfile").read_text()
    text = text.replace("FROM debian-base", "FROM localhost/debian-base")
    (out / "Dockerfile").write_text(text)
    cache = work / "trivy"
    (cache / "db").mkdir(parents=True)
    demodb = located("demodb", environment)
    advisories = ROOT / "tools/go/demodb/advisories.json"
    subprocess.run([demodb, str(advisories), str(cache / "db")], check=True)
    return {
        **environment,
        "SEMGREP": located("semgrep", environment),
        "TRIVY": located("trivy", environment),
        "COSIGN": located("cosign", environment),
        "RULES": str(ROOT / "policies/semgrep"),
        "OUT": str(out), "STORE": str(store), "CACHE": str(cache),
        "BASES": str(work / "bases"),
        "KEY": str(work / "release.key"),
        "PUBLIC": str(work / "release.pub"),
        "COSIGN_PASSWORD": PASSWORD,
        "PATH": f"{environment['PATH']}:{Path(located('semgrep', environment)).parent}",
    }  # fmt: skip


def measure(action: object) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - begun


def main() -> None:
    """Measure, interleaved, and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-run.") as temporary:
        work = Path(temporary)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SECURE_PIPELINE_KEY": f"file:{work / 'release.key'}",
            "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
            "SECURE_PIPELINE_POLICY": str(work / "release.yaml"),
            "SECURE_PIPELINE_DATABASE": "demonstration",
        }
        service = prepare(work, environment)
        variables = shell(work, service, environment)
        times: dict[str, list[float]] = {}

        def ours() -> None:
            pipeline("run", cwd=service, environment=environment)

        def script() -> None:
            done = subprocess.run(
                ["sh", "-c", SCRIPT],
                cwd=service,
                env=variables,
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(f"the script failed:\n{done.stderr[-2000:]}")

        def forget() -> None:
            shutil.rmtree(service / ".secure-pipeline", ignore_errors=True)
            subprocess.run(
                ["buildah", "--root", f"{work}/storage/root", "--runroot", f"{work}/storage/run",
                 "--storage-driver", "overlay", "rmi", "-af"],
                check=False, capture_output=True,
            )  # fmt: skip

        for _ in range(rounds):
            forget()
            times.setdefault("run, cold", []).append(measure(ours))
            times.setdefault("script, cold", []).append(measure(script))
            times.setdefault("run, again", []).append(measure(ours))
            times.setdefault("script, again", []).append(measure(script))
    report(times)


def report(times: dict[str, list[float]]) -> None:
    """Medians, spread and ratios; the same as JSON."""
    for name, values in times.items():
        print(
            f"{name:14} median {statistics.median(values):7.2f} s  "
            f"({min(values):.2f} to {max(values):.2f})"
        )
    ratios = {
        kind: statistics.median(times[f"script, {kind}"]) / statistics.median(times[f"run, {kind}"])
        for kind in ("cold", "again")
    }
    for kind, ratio in ratios.items():
        print(f"script / run, {kind}: {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "run.json").write_text(json.dumps({"seconds": times, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
