"""What makes the program's own image fits together; 'make image' builds it."""

import re
import tomllib
from pathlib import Path

from secure_pipeline import config
from secure_pipeline.policy import document

ROOT = Path(__file__).resolve().parents[2]


def test_its_configuration_and_policy_are_read() -> None:
    """The pipeline of this repository is one that the program accepts, with both bases."""
    loaded = config.load(ROOT / "secure-pipeline.yaml")
    stages = re.findall(r"^FROM (\S+) AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    bases = {base for base, _ in stages} - {name for _, name in stages}
    assert bases == set(loaded.build.bases)
    policy = document.load(ROOT / "packaging/policy.yaml").policy
    assert policy.require == document.load(ROOT / "examples/demo-policy.yaml").policy.require


def test_its_wheel_is_signed_where_the_dockerfile_leaves_it() -> None:
    """What build.files names is the directory that the last stage copies."""
    files = config.load(ROOT / "secure-pipeline.yaml").build.files
    assert files == ("/opt/wheel/*.whl",)
    assert "\nCOPY --from=build /opt/wheel /opt/wheel\n" in (ROOT / "Dockerfile").read_text()


def test_the_pip_that_installs_is_the_pinned_one() -> None:
    """The Dockerfile names the wheel that the wheelhouse has; another would end the build."""
    (version,) = re.findall(r"^pip==(\S+)", (ROOT / "packaging/pip.txt").read_text(), re.MULTILINE)
    assert f"/wheels/pip-{version}-py3-none-any.whl" in (ROOT / "Dockerfile").read_text()


def test_the_backend_is_in_the_wheelhouse() -> None:
    """The backend that pyproject.toml asks for stands with a hash in the build requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (backend,) = project["build-system"]["requires"]
    assert f"{backend} \\\n    --hash=sha256:" in (ROOT / "requirements/build.txt").read_text()
