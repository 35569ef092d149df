"""The images of a pipeline's steps: the program's own, and for tests one made from it.

The second has what the tests of the sample need, as a team's own image for them would: it is
FROM the program's image, with one layer more.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from fakes.ownimage import CACHE, own_image
from fakes.workplace import ROOT
from secure_pipeline.files import digest_of, locked, sha256_file
from secure_pipeline.oci.image import read_image, store_file, write_image
from secure_pipeline.oci.layout import Layout

USER = 65532
OWN, FOR_TESTS = "own", "for-tests"
"""Tags of the two images."""
_PACKAGES = (
    *("coverage", "iniconfig", "packaging", "pluggy", "prometheus-client", "pygments", "pytest"),
)
_PLACE = "usr/local/lib/python3.11/dist-packages"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_FILES = (
    "usr/bin/redis-server",
    *(f"{_LIBRARIES}/{name}" for name in ("libatomic.so.1", "libjemalloc.so.2", "liblzf.so.1")),
)
"""Debian's redis-server, with the libraries that the program's image does not have."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def step_images(path: Path) -> None:
    """Write both images into a new layout at ``path``."""
    own = own_image(path, OWN)
    layout = Layout.open(path)
    image = read_image(layout, own)
    layer = store_file(layout, _for_tests(), _LAYER, None)
    config = json.loads(layout.read_blob(image.manifest.config.digest, 1 << 20))
    config["rootfs"]["diff_ids"].append(str(layer.digest))
    config["history"] = []
    layers = (*image.manifest.layers, layer)
    layout.replace(FOR_TESTS, write_image(layout, json.dumps(config).encode(), layers))


def _for_tests() -> Path:
    """The layer: Python packages, each by its hash, and Redis; kept in the cache."""
    requirements = _requirements()
    name = digest_of({"": requirements, **{file: sha256_file(Path("/", file)) for file in _FILES}})
    path = CACHE / f"for-tests-{name[:16]}.tar"
    with locked(CACHE / "for-tests.lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as place:
                work = Path(place)
                (work / "requirements.txt").write_text(requirements)
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
                command += ["--disable-pip-version-check", "--require-hashes", "--no-compile"]
                command += ["--only-binary", ":all:", "--python-version", "3.11"]
                command += ["--target", str(work / "packages"), "-r", "requirements.txt"]
                subprocess.run(command, cwd=work, check=True, capture_output=True, timeout=300)
                with tarfile.open(work / "layer.tar", "w") as packed:
                    packed.add(work / "packages", _PLACE)
                    for file in _FILES:
                        packed.add(Path("/", file).resolve(), file)
                (work / "layer.tar").rename(path)
    return path


def _requirements() -> str:
    text = (ROOT / "requirements/dev.txt").read_text()
    found = [
        re.search(rf"^{name}==\S+ \\\n(?: +--hash=\S+(?: \\)?\n)+", text, re.MULTILINE)
        for name in _PACKAGES
    ]
    return "".join(match[0] for match in found if match)
