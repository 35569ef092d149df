"""The whole run on the sample: what passes, what is reused, what is refused, what survives."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.workplace import Ended, Workplace
from secure_pipeline.run import GRAPH

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("released")]


def stages(ended: Ended) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in ended.document["stages"]}


def processes_below(directory: Path) -> list[str]:
    """Command lines of processes whose working directory is inside ``directory``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(entry / "cwd")
            if cwd.startswith(str(directory)):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def altered(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def index(place: Workplace) -> dict[str, Any]:
    value = json.loads((place.state / "image/index.json").read_bytes())
    assert isinstance(value, dict)
    return value


# --- what a run does -----------------------------------------------------------------------


def test_a_run_ends_with_a_verified_image(released: Workplace) -> None:
    """Every stage leaves its result and reports, and the image verifies by itself."""
    (run,) = (released.state / "runs").iterdir()
    for stage in GRAPH:
        result = json.loads((run / "stages" / f"{stage}.json").read_bytes())["result"]
        assert result["verdict"] == "PASS", stage
    names = {p.name for p in run.glob("reports/*/*")}
    assert {"findings.sarif", "build.log", "evidence.intoto.jsonl", "vsa.json"} <= names
    image = f"inference-service@{released.image()}"
    assert released.run("verify", image).code == 0
    assert released.run("verify", "layout", str(released.state / "image")).code == 0


def test_the_dashboard_has_the_figures_and_the_history(copy_of_released: Workplace) -> None:
    """Totals, cache and scan of this run, and one line for each run before it."""
    copy_of_released.run("run")
    documents = [
        json.loads(path.read_bytes())
        for path in sorted(
            copy_of_released.state.glob("runs/*/dashboard.json"), key=lambda p: p.stat().st_mtime
        )
    ]
    assert [len(d["history"]) for d in documents] == [1, 2]
    last = documents[-1]
    assert last["verdict"] == "PASS"
    assert last["cache"]["stagesReused"] == len(GRAPH) - 1
    assert last["scan"]["packages"] > 50
    assert last["total"]["seconds"] < documents[0]["total"]["seconds"]


def test_files_of_the_image_are_signed_by_the_run(copy_of_released: Workplace) -> None:
    """They lie with their bundles beside the image; the result is reused only while they do."""
    place = copy_of_released
    (file,) = (place.state / "files").glob("*.py")
    source = place.root / "src/inference_service/__main__.py"
    assert file.read_bytes() == source.read_bytes()
    judged = place.run("verify", "file", str(file), "--json")
    assert judged.code == 0, judged.text
    assert judged.document["image"] == f"inference-service@{place.image()}"
    assert judged.document["run"] == next((place.state / "runs").iterdir()).name
    altered(file)
    assert place.run("verify", "file", str(file)).code == 11
    again = stages(place.run("run", "--json"))
    assert [name for name, stage in again.items() if not stage["cached"]] == ["sign", "verify"]
    assert place.run("verify", "file", str(file)).code == 0
    assert stages(place.run("run", "--json"))["sign"]["cached"]


def test_unchanged_inputs_reuse_all_evidence(copy_of_released: Workplace) -> None:
    """A second run executes only verify, and says whose evidence it used."""
    first = stages(copy_of_released.run("run", "--json"))
    assert {name for name, stage in first.items() if not stage["cached"]} == {"verify"}
    assert len({stage["origin"] for name, stage in first.items() if name != "verify"}) == 1


def test_a_changed_source_makes_new_evidence(workplace: Workplace) -> None:
    """After a commit every stage that reads the source runs again."""
    assert workplace.run("run").code == 0
    (workplace.root / "src/inference_service/extra.py").write_text('"""More."""\n')
    workplace.commit()
    again = workplace.run("run", "--json")
    assert again.code == 0, again.err
    assert not any(stage["cached"] for stage in stages(again).values())


def test_stages_typed_one_after_another_are_one_run(workplace: Workplace) -> None:
    """Each stage alone continues the same run, and the last one verifies it."""
    runs = set()
    for stage in GRAPH:
        if stage == "verify":
            continue
        ended = workplace.run(stage, "--json")
        assert ended.code == 0, (stage, ended.text)
        runs.add(ended.document["run"])
    assert len(runs) == 1
    assert workplace.run("verify").code == 0


def test_uncommitted_changes_are_denied(workplace: Workplace) -> None:
    """The image of a changed working tree carries that fact, and the policy refuses it."""
    (workplace.root / "src/inference_service/extra.py").write_text('"""More."""\n')
    ended = workplace.run("run")
    assert ended.code == 12
    assert "uncommitted" in ended.out


# --- gates ---------------------------------------------------------------------------------


def test_a_failing_test_stops_the_release(workplace: Workplace) -> None:
    """A failing test gives exit 10; the image is scanned but nothing is signed."""
    (workplace.root / "tests/test_wrong.py").write_text("def test_wrong() -> None:\n    assert 0\n")
    workplace.commit()
    ended = workplace.run("run", "--json")
    assert ended.code == 10
    assert stages(ended)["test"]["verdict"] == "FAIL"
    assert ended.document["notRun"] == ["sign", "verify"]
    assert len(index(workplace)["manifests"]) == 1


def test_a_dangerous_call_stops_the_release(workplace: Workplace) -> None:
    """A finding of static analysis at the gate gives exit 10 and names its line."""
    (workplace.root / "src/inference_service/bad.py").write_text(
        "import subprocess\n\n\ndef run(text: str) -> None:\n    subprocess.run(text, shell=True)\n"
    )
    workplace.commit()
    ended = workplace.run("analyze")
    assert ended.code == 10
    assert "src/inference_service/bad.py:5" in ended.out


def test_bld_03_an_unpinned_base_is_denied(workplace: Workplace) -> None:
    """FROM by tag is refused before anything is built, with its line and exit 12."""
    dockerfile = workplace.root / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "\nFROM python:3.12\n")
    workplace.commit()
    ended = workplace.run("build")
    assert ended.code == 12
    line = len(dockerfile.read_text().splitlines())
    assert f"Dockerfile:{line}" in ended.out


def test_the_repository_cannot_choose_its_policy(workplace: Workplace) -> None:
    """Without a policy of the operator the built-in one refuses the demonstration database."""
    ended = workplace.run("run", SECURE_PIPELINE_POLICY="")
    assert ended.code != 0
    assert stage_of(ended, "scan").startswith("scan")


def stage_of(ended: Ended, name: str) -> str:
    return next(line for line in ended.out.splitlines() if line.startswith(name))


# --- tampering -----------------------------------------------------------------------------


def test_one_altered_byte_of_the_image_is_refused(copy_of_released: Workplace) -> None:
    """A changed layer is an alarm (exit 11) for run and for verify, not a cache miss."""
    blobs = copy_of_released.state / "image/blobs/sha256"
    altered(max(blobs.iterdir(), key=lambda path: path.stat().st_size))
    assert copy_of_released.run("run").code == 11
    assert copy_of_released.run("verify").code == 11


def test_every_altered_blob_is_refused(copy_of_released: Workplace) -> None:
    """Whichever blob of image or evidence changes, verify ends with 11."""
    blobs = sorted((copy_of_released.state / "image/blobs/sha256").iterdir())
    assert len(blobs) > 20
    for blob in blobs:
        whole = blob.read_bytes()
        altered(blob)
        ended = copy_of_released.run("verify")
        blob.write_bytes(whole)
        if ended.code != 11:
            assert superseded(copy_of_released, blob.name), (blob.name, ended.out)
    assert copy_of_released.run("verify").code == 0


def superseded(place: Workplace, name: str) -> bool:
    """An older .att manifest that nothing leads to any more."""
    return name not in json.dumps(index(place)) and not any(
        name in path.read_bytes().decode("utf-8", "replace")
        for path in (place.state / "image/blobs/sha256").iterdir()
        if path.stat().st_size < 100_000 and path.name in json.dumps(index(place))
    )


def remove_bundle(place: Workplace, predicate: str) -> None:
    """Take one statement away from both layouts."""
    document = index(place)
    blobs = place.state / "image/blobs/sha256"
    key = "dev.sigstore.bundle.predicateType"
    kept = [m for m in document["manifests"] if m.get("annotations", {}).get(key) != predicate]
    assert len(kept) < len(document["manifests"])
    for entry in kept:
        if (
            entry.get("annotations", {})
            .get("org.opencontainers.image.ref.name", "")
            .endswith(".att")
        ):
            manifest = json.loads((blobs / entry["digest"].split(":")[1]).read_bytes())
            manifest["layers"] = [
                layer
                for layer in manifest["layers"]
                if layer["annotations"].get("predicateType") != predicate
            ]
            data = json.dumps(manifest).encode()
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            entry["digest"], entry["size"] = f"sha256:{digest}", len(data)
    document["manifests"] = kept
    (place.state / "image/index.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "predicate",
    [
        "https://in-toto.io/attestation/vulns/v0.2",
        "https://slsa.dev/provenance/v1",
        "https://secure-pipeline.dev/attestation/seal/v1",
    ],
)
def test_a_removed_statement_is_refused(copy_of_released: Workplace, predicate: str) -> None:
    """Evidence taken from both layouts is missed, the seal itself too."""
    remove_bundle(copy_of_released, predicate)
    ended = copy_of_released.run("verify")
    assert ended.code == 11, ended.out


def test_another_image_has_no_evidence(copy_of_released: Workplace, released: Workplace) -> None:
    """The evidence of one image says nothing about another digest."""
    other = f"inference-service@sha256:{'0' * 64}"
    assert copy_of_released.run("verify", other).code == 11


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["scan", "sign", "verify"])
def test_reg_01_a_tag_is_not_an_image(released: Workplace, command: str) -> None:
    """A reference by tag is refused with a hint and exit 2."""
    ended = released.run(command, "inference-service:latest")
    assert ended.code == 2
    assert "hint:" in ended.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\nname: a\nbiuld: {}\n", 3),
        ("version: 1\nname: a\nname: b\n", 3),
        ("version: 1\nname: &x a\ntest: *x\n", 2),
        ("version: 1\nname: a\nbuild:\n  - x\n", 3),
        ("version: [1\n", 2),
    ],
)
def test_a_broken_configuration_names_its_line(workplace: Workplace, text: str, line: int) -> None:
    """Exit 3, file:line, and nothing is written."""
    (workplace.root / "secure-pipeline.yaml").write_text(text)
    ended = workplace.run("run")
    assert ended.code == 3
    assert f"secure-pipeline.yaml:{line}" in ended.err
    assert not workplace.state.exists()


def test_no_configuration_says_what_to_type(workplace: Workplace) -> None:
    """Without a file the hint is init."""
    (workplace.root / "secure-pipeline.yaml").unlink()
    ended = workplace.run("run")
    assert ended.code == 3
    assert "secure-pipeline init" in ended.err


def test_a_huge_configuration_is_refused(workplace: Workplace) -> None:
    """A file over the limit is refused without being parsed."""
    (workplace.root / "secure-pipeline.yaml").write_text("#" * (2 << 20))
    assert workplace.run("run").code == 3


def test_a_dockerfile_that_does_not_parse(workplace: Workplace) -> None:
    """Exit 3 with the line."""
    (workplace.root / "Dockerfile").write_text("FROM debian-base\nRUNN true\n")
    ended = workplace.run("build")
    assert ended.code == 3
    assert "Dockerfile:2" in ended.text


def test_a_failing_build_step_is_named(workplace: Workplace) -> None:
    """Exit 10 with the Dockerfile's line, and no image is left behind."""
    (workplace.root / "Dockerfile").write_text(
        'FROM debian-base AS runtime\nENV A=1\nRUN ["sh", "-c", "echo no such luck; exit 7"]\n'
    )
    ended = workplace.run("build")
    assert ended.code == 10
    assert "Dockerfile:3" in ended.out
    assert "no such luck" in ended.out
    assert not (workplace.state / "image/index.json").exists() or not index(workplace)["manifests"]


def test_cli_06_a_missing_builder_is_unavailable(workplace: Workplace, tmp_path: Path) -> None:
    """A tool that is not there gives exit 4 and says what to install."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(str(shutil.which("git")))
    ended = workplace.run("build", PATH=str(programs))
    assert ended.code == 4
    assert "apt-get install buildah" in ended.err


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"SECURE_PIPELINE_KEY_PASSWORD": "wrong"}, 2),
        ({"SECURE_PIPELINE_KEY": "file:missing.key"}, 3),
        ({"SECURE_PIPELINE_KEY": "vault://nowhere"}, 2),
        ({"SECURE_PIPELINE_POLICY": "missing.yaml"}, 3),
        ({"SECURE_PIPELINE_DATABASE": "./missing"}, 4),
    ],
)
def test_what_the_operator_named_wrongly(
    copy_of_released: Workplace, change: dict[str, str], code: int
) -> None:
    """Wrong password, key, policy and database each have their own error and never pass."""
    ended = copy_of_released.run("run", "--no-cache", **change)
    assert ended.code == code, ended.text
    assert "error:" in ended.err
    assert "wrong" not in ended.text.replace("found wrong", "")


def test_a_run_without_a_key_ends_before_it_begins(workplace: Workplace) -> None:
    """Nobody waits for a scan to learn that the key or its password is missing."""
    for name in ("SECURE_PIPELINE_KEY", "SECURE_PIPELINE_KEY_PASSWORD"):
        del workplace.environment[name]
        ended = workplace.run("run")
        assert ended.code == 2
        assert "started" not in ended.out
        assert "hint:" in ended.err
    assert not workplace.state.exists()


def test_scn_01_a_scan_without_a_database_is_not_a_pass(copy_of_released: Workplace) -> None:
    """An unreachable repository of databases is exit 4, never zero findings."""
    ended = copy_of_released.run("scan", SECURE_PIPELINE_DATABASE="127.0.0.1:9/nothing/trivy-db:2")
    assert ended.code == 4, ended.text


def test_a_second_run_at_once_is_refused(copy_of_released: Workplace) -> None:
    """Two runs never share a state directory."""
    first = copy_of_released.start("run", "--no-cache")
    try:
        assert until(first, "analyze  started")
        second = copy_of_released.run("run")
        assert second.code == 4
        assert "another run" in second.err
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_hanging_tests_are_inconclusive(workplace: Workplace) -> None:
    """A test command over its time is ended with its children; exit 14."""
    path = workplace.root / "secure-pipeline.yaml"
    path.write_text(
        path.read_text()
        .replace("[python3, tests/run.py]", "[sh, -c, 'sleep 600 & sleep 600']")
        .replace("timeout: 5m", "timeout: 2s")
    )
    ended = workplace.run("test")
    assert ended.code == 14, ended.text
    assert processes_below(workplace.root) == []


def test_a_full_disk_stops_the_run(workplace: Workplace) -> None:
    """A state directory without room gives exit 4, no traceback and no signed image."""
    workplace.state.mkdir()
    script = f'mount -t tmpfs -o size=2m full {workplace.state} && exec "$@"'
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", script, "sh",
         sys.executable, "-m", "secure_pipeline", "run"],
        cwd=workplace.root, env=workplace.environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in (4, 14), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "verified" not in done.stdout.splitlines()


# --- interruption --------------------------------------------------------------------------


def until(process: subprocess.Popen[str], line: str, seconds: float = 120) -> bool:
    """Read the program's output until a line appears; False if it ended before."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        return any(text.startswith(line) for text in iter(process.stdout.readline, ""))
    finally:
        timer.cancel()


def test_cli_03_interrupted_in_any_stage(workplace: Workplace) -> None:
    """Ctrl-C in each stage ends with 130, leaves no process, and the next run continues."""
    for stage in GRAPH:
        process = workplace.start("run")
        if until(process, f"{stage:8} started"):
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (130, 0), (stage, err)
        assert process.returncode == 130 or stage in ("sign", "verify")
        assert "Traceback" not in err
        assert processes_below(workplace.root) == []
    assert workplace.run("run").code == 0
    assert workplace.run("verify").code == 0


def test_killed_at_any_time_the_next_run_ends_well(workplace: Workplace) -> None:
    """After kill -9 at several times nothing half-done passes, and a later run does."""
    for attempt in range(8):
        process = workplace.start("run")
        time.sleep(0.4 + attempt)
        process.kill()
        process.communicate(timeout=60)
        ended = workplace.run("verify")
        assert ended.code in (0, 2, 11), ended.text
        if ended.code == 0:
            assert re.search(r"sealed statements are there", ended.out)
    done = workplace.run("run")
    assert done.code == 0, done.text
    assert workplace.run("verify").code == 0


def test_cli_01_a_file_name_that_is_not_utf8(workplace: Workplace) -> None:
    """Such a name in the repository does not stop a run in the C locale."""
    with open(os.fsencode(workplace.root) + b"/notes-\xe9.txt", "wb") as stream:
        stream.write(b"x\n")
    workplace.commit()
    ended = workplace.run("run", LANG="C", LC_ALL="C")
    assert ended.code == 0, ended.text


def test_json_goes_to_stdout_and_text_to_stderr(copy_of_released: Workplace) -> None:
    """With --json stdout is one versioned document and people's text is on stderr."""
    ended = copy_of_released.run("run", "--json")
    assert ended.document["apiVersion"] == "secure-pipeline/v1"
    assert ended.document["exitCode"] == 0
    assert "STAGE" in ended.err
