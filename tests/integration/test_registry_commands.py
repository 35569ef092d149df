"""run, sign, verify and copy as people type them, against a registry with TLS and a password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.lockedregistry import LockedRegistry, locked_registry
from fakes.tokenservice import PASSWORD, USER
from fakes.workplace import Workplace
from secure_pipeline.oci.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("released")]

REPOSITORY = "team/inference-service"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedRegistry]:
    with locked_registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture
def variables(registry: LockedRegistry) -> dict[str, str]:
    """What an operator sets for this registry."""
    registry.log_in()
    return {
        "DOCKER_CONFIG": str(registry.config),
        "SECURE_PIPELINE_REGISTRY_CA": str(registry.authority.ca),
    }


@pytest.fixture(scope="module")
def pushed(registry: LockedRegistry, released: Workplace) -> str:
    """The image of a released run, copied into the registry; its name by digest."""
    registry.log_in()
    ended = released.run(
        "copy",
        f"layout:{released.state / 'image'}",
        f"{registry.host}/{REPOSITORY}:v1",
        "--json",
        DOCKER_CONFIG=str(registry.config),
        SECURE_PIPELINE_REGISTRY_CA=str(registry.authority.ca),
    )
    assert ended.code == 0, ended.text
    image = ended.document["image"]
    assert image == f"{registry.host}/{REPOSITORY}@{released.image()}"
    assert ended.document["tags"][-1] == "v1"
    return str(image)


def test_a_copied_image_verifies_where_it_is(
    pushed: str, released: Workplace, variables: dict[str, str], tmp_path: Path
) -> None:
    """Verify reads everything from the registry: no layout, no repository is at hand."""
    elsewhere = Workplace(tmp_path, released.environment)
    ended = elsewhere.run("verify", pushed, "--layers", **variables)
    assert ended.code == 0, ended.text
    assert "bytes agree with" in ended.out
    quick = elsewhere.run("verify", pushed, **variables)
    assert quick.code == 0, quick.text
    assert "layers were not read" in quick.out


def test_several_images_get_a_line_each_and_the_worst_code(
    pushed: str, released: Workplace, variables: dict[str, str]
) -> None:
    """One good image and one that is not there: 11, and both are named."""
    missing = f"{pushed.rpartition(':')[0]}:{'0' * 64}"
    both = released.run("verify", pushed, pushed, **variables)
    assert both.code == 0, both.text
    assert "2 of 2 images verified" in both.out
    mixed = released.run("verify", pushed, missing, "--json", **variables)
    assert mixed.code == 11, mixed.text
    assert [item["exitCode"] for item in mixed.document["images"]] == [0, 11]


def test_the_whole_run_ends_in_the_registry(
    copy_of_released: Workplace, registry: LockedRegistry, variables: dict[str, str]
) -> None:
    """Run --push says where the image is now, by digest, and its evidence is beside it."""
    to = f"{registry.host}/team/pushed:latest"
    ended = copy_of_released.run("run", "--push", to, **variables)
    assert ended.code == 0, ended.text
    image = f"{registry.host}/team/pushed@{copy_of_released.image()}"
    assert f"pushed {image} with 9 referrers" in ended.out
    assert copy_of_released.run("verify", image, **variables).code == 0


def test_a_run_that_fails_pushes_nothing(
    copy_of_released: Workplace, registry: LockedRegistry, variables: dict[str, str]
) -> None:
    """Nothing of a run with failing tests reaches the registry."""
    test = copy_of_released.root / "tests/test_model.py"
    test.write_text(f"{test.read_text()}\n\ndef test_fails():\n    assert False\n")
    copy_of_released.commit()
    place = f"{registry.host}/team/failed"
    ended = copy_of_released.run("run", "--push", f"{place}:latest", **variables)
    assert ended.code == 10, ended.text
    assert "pushed" not in ended.text
    looked = copy_of_released.run("verify", f"{place}@{copy_of_released.image()}", **variables)
    assert looked.code == 11, looked.text


def test_a_registry_and_back_again(
    pushed: str, released: Workplace, variables: dict[str, str], tmp_path: Path
) -> None:
    """Copy brings image and evidence into a new layout that verifies offline."""
    ended = released.run("copy", pushed, f"layout:{tmp_path / 'back'}", **variables)
    assert ended.code == 0, ended.text
    verified = released.run("verify", "layout", str(tmp_path / "back"))
    assert verified.code == 0, verified.text
    again = released.run("copy", pushed, f"layout:{tmp_path / 'back'}", "--json", **variables)
    assert again.document["blobs"]["sent"] == 0


def test_wrong_credentials_are_named_and_never_shown(
    pushed: str, released: Workplace, registry: LockedRegistry, variables: dict[str, str]
) -> None:
    """A wrong password: 4, with registry, user and what to type; the password is nowhere."""
    registry.log_in("a-wrong-password")
    ended = released.run("verify", pushed, **variables)
    assert ended.code == 4, ended.text
    assert registry.host in ended.err
    assert USER in ended.err
    assert f"docker login {registry.host}" in ended.err
    assert "a-wrong-password" not in ended.text
    (registry.config / "config.json").write_text(json.dumps({}))
    anonymous = released.run("verify", pushed, **variables)
    assert anonymous.code == 4, anonymous.text
    assert "anonymous" in anonymous.err


def test_a_registry_that_is_not_trusted_or_not_there_is_no_pass(
    pushed: str, released: Workplace, variables: dict[str, str]
) -> None:
    """An unknown authority, http where TLS is spoken, and a closed port: 4, in one line."""
    untrusted = released.run("verify", pushed, DOCKER_CONFIG=variables["DOCKER_CONFIG"])
    assert untrusted.code == 4, untrusted.text
    digest = pushed.partition("@")[2]
    closed = released.run("verify", f"127.0.0.1:1/team/app@{digest}", **variables)
    assert closed.code == 4, closed.text
    assert PASSWORD not in untrusted.text + closed.text
    assert closed.err.count("\n") <= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("copy", "inference-service:latest", "localhost/x"), "tag"),
        (("copy", "layout:.secure-pipeline/image", "no-registry"), "neither HOST/NAME"),
        (("copy", "layout:nowhere", "localhost/x"), "not an OCI layout"),
        (("copy", "layout:.secure-pipeline/image", "localhost/x:bad tag"), "is no tag"),
        (("verify", "docker.io/library/debian"), "has no digest"),
        (("run", "--push", "UPPER/x"), "neither HOST/NAME"),
    ],
)
def test_wrong_words_cost_nothing(released: Workplace, words: tuple[str, ...], said: str) -> None:
    """A wrong place is said before anything is sent or run, with what to type instead."""
    before = sorted(path.name for path in (released.state / "runs").iterdir())
    ended = released.run(*words)
    assert ended.code == 2, ended.text
    assert said in ended.err
    assert "hint: " in ended.err
    assert sorted(path.name for path in (released.state / "runs").iterdir()) == before


def test_evidence_taken_from_the_registry_refuses(
    pushed: str,
    released: Workplace,
    registry: LockedRegistry,
    variables: dict[str, str],
    tmp_path: Path,
) -> None:
    """A layout without the seal, copied to a new place, is refused there: 11."""
    layout = tmp_path / "layout"
    assert released.run("copy", pushed, f"layout:{layout}", **variables).code == 0
    index = json.loads((layout / "index.json").read_bytes())
    sealed = [e for e in index["manifests"] if "seal" in str(e.get("annotations"))]
    assert len(sealed) == 1
    index["manifests"] = [
        entry
        for entry in index["manifests"]
        if entry not in sealed and not str(entry.get("annotations")).endswith(".att'}")
    ]
    (layout / "index.json").write_text(json.dumps(index))
    assert Layout.open(layout).manifests()
    to = f"{registry.host}/team/unsealed"
    copied = released.run("copy", f"layout:{layout}", to, "--json", **variables)
    assert copied.code == 0, copied.text
    ended = released.run("verify", copied.document["image"], **variables)
    assert ended.code == 11, ended.text
    assert "no seal" in ended.out
