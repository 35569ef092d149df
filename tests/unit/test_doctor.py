"""The doctor's judgement, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secure_pipeline.doctor import Check, Doctor, Places
from secure_pipeline.errors import Unavailable
from secure_pipeline.ports import Database
from secure_pipeline.tools.locate import LocatedTool

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DATABASE = Database(
    digest="sha256:" + "d" * 64,
    version=2,
    updated=NOW - timedelta(hours=3),
    source="/db",
    demonstration=False,
)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def without(*missing: str) -> Callable[[str], LocatedTool]:
    def locate(name: str) -> LocatedTool:
        if name in missing:
            raise Unavailable(f"{name} is not installed", hint=f"install {name}")
        return LocatedTool(name, Path("/usr/bin") / name, "9.9", "sha256:" + "a" * 64)

    return locate


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """One that finds everything in order."""
    (tmp_path / "secure-pipeline.yaml").write_text(
        "version: 1\nname: team/service\nsign:\n  key: file:release.key\n"
    )
    (tmp_path / "release.key").write_text("x")
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    return Doctor(
        places=Places(tmp_path, None, tmp_path / "policy.yaml", None, None),
        locate=without(),
        database=lambda named: DATABASE,
        password_is_set=True,
        clock=FixedClock(),
    )


def check(doctor: Doctor, part: str) -> Check:
    return next(check for check in doctor.examine() if check.part == part)


def test_with_everything_there_all_is_well(doctor: Doctor) -> None:
    """Each part is found, with versions, paths and names."""
    assert [check for check in doctor.examine() if not check.ok] == []
    assert "team/service" in str(check(doctor, "config").found)
    assert "9.9" in str(check(doctor, "trivy").found)


@pytest.mark.parametrize("name", ["git", "trivy", "semgrep"])
def test_a_missing_tool_is_a_need(doctor: Doctor, name: str) -> None:
    """A tool that a run needs is missing with its hint."""
    found = check(replace(doctor, locate=without(name)), name)
    assert (found.ok, found.needed, found.hint) == (False, True, f"install {name}")


def test_semgrep_that_cannot_be_installed_says_what_first(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pip and ensurepip a missing Semgrep needs a package first; one that is there not."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert check(doctor, "semgrep").ok
    found = check(replace(doctor, locate=without("semgrep")), "semgrep")
    assert found.hint == "apt-get install python3-venv, then install semgrep"


@pytest.mark.parametrize(
    ("missing", "builder"),
    [
        ((), "buildah"),
        (("docker",), "buildah"),
        (("crun",), "runc"),
        (("buildah",), "docker"),
        (("crun", "runc"), "docker"),
        (("buildah", "docker"), None),
        (("crun", "runc", "docker"), None),
    ],
)
def test_one_builder_is_enough(
    doctor: Doctor, missing: tuple[str, ...], builder: str | None
) -> None:
    """Buildah with crun or runc builds, else docker; without either there is no builder."""
    found = check(replace(doctor, locate=without(*missing)), "builder")
    assert found.ok is (builder is not None)
    assert builder is None or builder in str(found.found)


def test_the_builder_that_the_configuration_names_is_the_one_needed(doctor: Doctor) -> None:
    """A configured builder is not replaced by another one that happens to be there."""
    path = doctor.places.start / "secure-pipeline.yaml"
    for builder in ("buildah", "docker"):
        path.write_text(f"version: 1\nname: a\nbuild:\n  builder: {builder}\n")
        assert not check(replace(doctor, locate=without(builder)), "builder").ok


@pytest.mark.parametrize(
    ("database", "says"),
    [
        (replace(DATABASE, updated=NOW - timedelta(days=30)), "30.0 days old"),
        (replace(DATABASE, demonstration=True), "demonstration"),
    ],
)
def test_a_database_that_a_scan_would_refuse_is_no_database(
    doctor: Doctor, database: Database, says: str
) -> None:
    """A stale or demonstration database is told before a run fails on it (SCN-02)."""
    found = check(replace(doctor, database=lambda named: database), "database")
    assert not found.ok
    assert says in str(found.problem)


def test_a_key_needs_its_file_and_password(doctor: Doctor) -> None:
    """A missing key file or password is told with what to type."""
    assert "password" in str(check(replace(doctor, password_is_set=False), "signing key").problem)
    (doctor.places.start / "release.key").unlink()
    assert "no such key file" in str(check(doctor, "signing key").problem)


@pytest.mark.parametrize("key", ["keyless", "vault-transit://transit/release"])
def test_what_is_no_file_is_not_looked_for(doctor: Doctor, key: str) -> None:
    """An identity or a key in Vault needs neither file nor password here."""
    places = replace(doctor.places, key=key)
    found = check(replace(doctor, places=places, password_is_set=False), "signing key")
    assert found.found == key


def test_the_policy_judges_the_database(doctor: Doctor) -> None:
    """Another database than the policy names is refused; without a policy none is accepted."""
    assert doctor.places.policy is not None
    doctor.places.policy.write_text(
        "version: 1\ngates:\n  scan:\n    database: sha256:" + "e" * 64 + "\n"
    )
    assert "the policy accepts sha256:eee" in str(check(doctor, "database").problem)
    doctor.places.policy.write_text("version: [")
    assert not check(doctor, "policy").ok
    assert not check(doctor, "database").ok
