"""An image in a layout, to put evidence beside."""

from pathlib import Path

import pytest

from fakes.beside import Beside
from fakes.evidence import signer


@pytest.fixture
def site(tmp_path: Path) -> Beside:
    return Beside.make(tmp_path / "layout", signer())
