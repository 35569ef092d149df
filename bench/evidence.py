"""Signing, attaching and verifying evidence in a registry, beside cosign, in one session.

"sign": a run's evidence signed, sealed and pushed in both layouts by ``sign --push``, beside six
calls of ``cosign attest`` for six of the same statements (one layout, no seal). "verify": one
image, and many, by one call of ``verify``, beside a shell loop of ``cosign
verify-attestation`` that asks for one predicate type an image; for one image also a loop
over all types that ``verify`` checks. Everything is on loopback. The ratio is what counts.

    python bench/evidence.py [--rounds N] [--images N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fakes.evidence import NAME  # noqa: E402
from fakes.registry import build_referrers_registry, referrers_registry  # noqa: E402
from fakes.release import BUILDER, Release  # noqa: E402
from secure_pipeline.adapters.clock import SystemClock  # noqa: E402
from secure_pipeline.adapters.dockerconfig import NoCredentials  # noqa: E402
from secure_pipeline.adapters.registry import open_repository  # noqa: E402
from secure_pipeline.attestations import predicates  # noqa: E402
from secure_pipeline.keys.local import generate, load  # noqa: E402
from secure_pipeline.oci.copy import copy_image  # noqa: E402
from secure_pipeline.oci.layout import Layout  # noqa: E402
from secure_pipeline.wiring import locate_tool, tool_store  # noqa: E402

RESULTS = ROOT / "bench" / "results"
PASSWORD = "only for the bench"
KINDS = (
    predicates.TEST_RESULT,
    predicates.PROVENANCE,
    predicates.VULNS,
    predicates.COSIGN_VULN,
    predicates.CYCLONEDX,
    predicates.SPDX,
)
NO_LOG = ("--use-signing-config=false", "--tlog-upload=false")
POLICY = """\
version: 1
keys:
  - {id: release, public-key: release.pub, algorithm: ecdsa-p256-sha256}
require:
%s
builders: ["%s"]
gates: {analyze: {severity: critical}, scan: {max-database-age: 3650d, severity: critical}}
"""


class Bench:
    """One registry, one key, one policy."""

    def __init__(self, work: Path, host: str) -> None:
        self.work = work
        memory = Path("/dev/shm")
        self.fast = memory if memory.is_dir() else work
        """Where images are made that only the registry keeps; making them is not measured."""
        self.host = host
        self.cosign = str(locate_tool("cosign").path)
        generate(work / "release.key", PASSWORD)
        self.signer = load(work / "release.key", PASSWORD)
        lines = "".join(f"  - {{predicate: {kind}}}\n" for kind in KINDS)
        (work / "release.yaml").write_text(POLICY % (lines, BUILDER))
        self.environment = {
            "HOME": str(work),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "COSIGN_PASSWORD": PASSWORD,
            "SECURE_PIPELINE_KEY_PASSWORD": PASSWORD,
            "SECURE_PIPELINE_POLICY": str(work / "release.yaml"),
            "SECURE_PIPELINE_TOOLS": str(tool_store().root),
        }

    def call(self, *argv: str, cwd: Path | None = None) -> None:
        """Run a command line; a failure ends the bench."""
        done = subprocess.run(
            argv, cwd=cwd or self.work, env=self.environment, check=False, capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{argv[:3]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def ours(self, *arguments: str, cwd: Path | None = None) -> None:
        """Run our program."""
        self.call(sys.executable, "-m", "secure_pipeline", *arguments, cwd=cwd)

    def image(self, number: int) -> str:
        """Make, sign and push one small image with a run's evidence; return its name."""
        path = Path(tempfile.mkdtemp(dir=self.fast)) / "image"
        release = Release(path, f"image {number}\n".encode())
        release.run(f"run-{number}", key=self.signer, time=SystemClock().now())
        repository = open_repository(
            f"{self.host}/team-{number % 50}/{NAME}",
            credentials=NoCredentials(),
            clock=SystemClock(),
        )
        copy_image(release.layout, release.image.digest, repository, tag=None, on_progress=str)
        shutil.rmtree(path.parent)
        return f"{repository.name}@{release.image.digest}"

    def cosign_verify(self, image: str, kind: str) -> None:
        """Let cosign verify the attestations of one type of one image."""
        self.call(
            *(self.cosign, "verify-attestation", "--key", "release.pub", "--type", kind),
            *("--insecure-ignore-tlog", image),
        )


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def signing(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Sign the evidence of a run of the sample, and six statements of it by cosign."""
    service = prepare_run(bench)
    state = service / ".secure-pipeline"
    shutil.move(state, bench.work / "stages")
    predicate_files = cosign_predicates(bench.work)
    times: dict[str, list[float]] = {}
    for turn in range(rounds):
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(bench.work / "stages", state, symlinks=True)
        layout = Layout.open(state / "image")
        digest = next(item.digest for item in layout.manifests())
        places = [f"{bench.host}/{who}-{turn}/app" for who in ("ours", "cosign")]
        for place in places:
            bench.ours("copy", f"layout:{state / 'image'}@{digest}", place)

        def ours(place: str = places[0]) -> None:
            bench.ours("sign", "--key", f"file:{bench.work}/release.key", "--push", place,
                       cwd=service)  # fmt: skip

        def cosign(image: str = f"{places[1]}@{digest}") -> None:
            for kind, path in predicate_files.items():
                bench.call(
                    *(bench.cosign, "attest", "--yes", *NO_LOG, "--key", "release.key"),
                    *("--type", kind, "--predicate", str(path), image),
                )

        times.setdefault("sign --push", []).append(timed(ours))
        times.setdefault("6 x cosign attest", []).append(timed(cosign))
    return times


def prepare_run(bench: Bench) -> Path:
    """Analyse, test, build and scan the sample once, in a copy; its base from the tests' store."""
    service = bench.work / "service"
    ignored = shutil.ignore_patterns(".secure-pipeline", "reports", "__pycache__")
    shutil.copytree(ROOT / "examples/inference-service", service, ignore=ignored)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
        subprocess.run(["git", *identity, *command], cwd=service, check=True)
    base = ROOT / ".bench" / "debian-base"
    bench.ours("base", "debian", "--include", "python3,python3-prometheus-client",
               "--output", str(base))  # fmt: skip
    (bench.work / "bases").mkdir()
    (bench.work / "bases/debian-base").symlink_to(base)
    shutil.copy(ROOT / "examples/demo-policy.yaml", bench.work / "release.yaml")
    for stage in ("analyze", "test", "build"):
        bench.ours(stage, cwd=service)
    bench.ours("scan", "--database", "demonstration", cwd=service)
    shutil.rmtree(service / ".secure-pipeline/builder", ignore_errors=True)
    return service


def cosign_predicates(work: Path) -> dict[str, Path]:
    """The predicates of the sample's run, as files, for cosign to sign."""
    found: dict[str, Path] = {}
    for path in sorted((work / "stages").glob("runs/*/stages/*.json")):
        for item in json.loads(path.read_bytes())["result"]["evidence"]:
            file = work / f"predicate-{len(found)}.json"
            file.write_text(json.dumps(item["predicate"]))
            found.setdefault(item["predicate_type"], file)
    if set(found) != set(KINDS):
        sys.exit(f"the run has other evidence than expected: {sorted(found)}")
    return found


def verifying(bench: Bench, rounds: int, count: int) -> dict[str, list[float]]:
    """Verify one image and many."""
    lines = "".join(f"  - {{predicate: {kind}}}\n" for kind in KINDS)
    (bench.work / "release.yaml").write_text(POLICY % (lines, BUILDER))
    print(f"making and pushing {count} images", flush=True)
    with ThreadPoolExecutor(4) as workers:
        images = list(workers.map(bench.image, range(count)))
    times: dict[str, list[float]] = {}
    one = images[0]
    for _ in range(rounds):
        times.setdefault("verify, 1 image", []).append(timed(lambda: bench.ours("verify", one)))
        times.setdefault("cosign, 1 image, 1 type", []).append(
            timed(lambda: bench.cosign_verify(one, KINDS[1]))
        )
        times.setdefault("cosign, 1 image, 6 types", []).append(
            timed(lambda: [bench.cosign_verify(one, kind) for kind in KINDS])
        )
    times[f"verify, {count} images"] = [timed(lambda: bench.ours("verify", *images))]
    times[f"cosign, {count} images, 1 type"] = [
        timed(lambda: [bench.cosign_verify(image, KINDS[1]) for image in images])
    ]
    return times


def report(times: dict[str, list[float]], pairs: list[tuple[str, str]]) -> None:
    """Medians, spread and ratios; the same as JSON."""
    for name, values in times.items():
        spread = f"({min(values):.2f} to {max(values):.2f}, {len(values)} runs)"
        print(f"{name:28} median {statistics.median(values):8.3f} s  {spread}")
    ratios = {}
    for theirs, ours in pairs:
        ratio = statistics.median(times[theirs]) / statistics.median(times[ours])
        ratios[f"{theirs} / {ours}"] = ratio
        print(f"{theirs} / {ours}: {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "evidence.json").write_text(
        json.dumps({"seconds": times, "ratios": ratios}, indent=2)
    )


def main() -> None:
    """Measure, interleaved, and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-evidence.") as temporary:
        work = Path(temporary)
        with referrers_registry(build_referrers_registry(work)) as host:
            bench = Bench(work, host)
            times = signing(bench, asked.rounds)
            times |= verifying(bench, asked.rounds, asked.images)
    many = f"{asked.images} images"
    report(
        times,
        [
            ("6 x cosign attest", "sign --push"),
            ("cosign, 1 image, 1 type", "verify, 1 image"),
            ("cosign, 1 image, 6 types", "verify, 1 image"),
            (f"cosign, {many}, 1 type", f"verify, {many}"),
        ],
    )


if __name__ == "__main__":
    main()
