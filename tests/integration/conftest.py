"""The program as people start it, on the sample, with the real tools."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kubernetes import Cluster, kubernetes_cluster
from cluster.pipelines import SHELL, PipelinePlace
from cluster.stepimage import step_images
from cluster.tekton import Ended, running_tekton
from fakes.bases import small_debian
from fakes.workplace import BASE, ROOT, Workplace, environment, make_workplace
from secure_pipeline.files import locked


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What takes long and every workplace can use: made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "shared-workplace"
    with locked(directory.with_suffix(".lock")):
        if not (directory / "ready").exists():
            directory.mkdir(exist_ok=True)
            workplace = Workplace(directory, environment(directory))
            for arguments in (
                ("keys", "generate", "--output", str(directory / "release")),
                (
                    *("base", "debian", "--suite", "bookworm"),
                    *("--include", "python3,python3-prometheus-client", "--output", str(BASE)),
                ),
            ):
                ended = workplace.run(*arguments)
                assert ended.code == 0, ended.text
            (directory / "bases").mkdir(exist_ok=True)
            (directory / "bases/debian-base").symlink_to(BASE)
            (directory / "small-bases").mkdir(exist_ok=True)
            small_debian(directory / "small-bases/debian-base")
            (directory / "policy").mkdir(exist_ok=True)
            policy = (ROOT / "examples/demo-policy.yaml").read_text()
            (directory / "policy/release.yaml").write_text(policy)
            quick = policy.replace("minimum-coverage: 95", "minimum-coverage: 50")
            (directory / "policy/quick.yaml").write_text(quick)
            for engine in ("github", "tekton"):
                text = quick.replace("builder/local/v1", f"builder/{engine}/v1")
                (directory / f"policy/{engine}.yaml").write_text(text)
            shutil.copy(directory / "release.pub", directory / "policy/release.pub")
            (directory / "ready").touch()
    return directory


@pytest.fixture
def workplace(tmp_path: Path, shared: Path) -> Workplace:
    """A workplace of its own for a test that changes it, with a small image."""
    return make_workplace(tmp_path, shared, small=True)


SIGNED_FILE = "/opt/inference-service/inference_service/__main__.py"
"""In the released image, with a signature of its own."""


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Workplace:
    """A workplace whose run has passed; tests copy it and never change it.

    One run for all workers, and a copy of its own for each.
    """
    place = Workplace(shared / "released/service", environment(shared))
    with locked(shared / "released.lock"):
        if not (shared / "released/ready").exists():
            make_workplace(shared / "released", shared, whole=True)
            config = place.root / "secure-pipeline.yaml"
            config.write_text(
                config.read_text().replace("build:\n", f"build:\n  files: ['{SIGNED_FILE}']\n")
            )
            place.commit()
            ended = place.run("run")
            assert ended.code == 0, ended.text
            (shared / "released/ready").touch()
    return _copy(place, tmp_path_factory.mktemp("released"))


@pytest.fixture
def copy_of_released(released: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the released workplace that a test may alter."""
    return _copy(released, tmp_path)


def _copy(place: Workplace, directory: Path) -> Workplace:
    root = directory / "service"
    # Not the builder's storage: its layers hold device nodes, which a copy would read for ever.
    shutil.copytree(place.root, root, symlinks=True, ignore=shutil.ignore_patterns("builder"))
    (directory / "bases").symlink_to((place.root.parent / "bases").resolve())
    return Workplace(root, place.environment)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Kubernetes; its tests carry ``xdist_group("cluster")``, so that there is one."""
    with kubernetes_cluster() as made:
        yield made


@pytest.fixture(scope="session")
def steps() -> Iterator[Path]:
    """A layout with the images of the Pipeline's steps."""
    with tempfile.TemporaryDirectory(prefix="secure-pipeline-steps-") as directory:
        step_images(Path(directory))
        yield Path(directory)


@pytest.fixture(scope="session")
def pipelines(
    steps: Path, cluster: Cluster, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> PipelinePlace:
    """tekton/overlays/dev in the cluster."""
    runs = tmp_path_factory.mktemp("runs")
    with cluster.network():
        return PipelinePlace.make(running_tekton(cluster), runs, shared, steps)


@pytest.fixture(scope="session")
def sound(pipelines: PipelinePlace) -> tuple[Workplace, Ended]:
    """A run of the sample in it that passed; tests never change what it left."""
    with pipelines.tekton.cluster.network(), pipelines.served() as server:
        repository = pipelines.repository("sound")
        given = {**repository.at(server), "vault-role": SHELL}
        ended = pipelines.finish(pipelines.start("sound", **given))
        assert ended.passed, f"{ended.message}\n{pipelines.logs(ended)}"
    return repository.workplace, ended
