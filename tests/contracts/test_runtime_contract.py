"""What every ports.Runtime promises; the fake passes here, real ones in tests/integration."""

from __future__ import annotations

import pytest

from fakes.runtime import FakeRuntime, container
from secure_pipeline.errors import PipelineError, Unavailable, UsageError
from secure_pipeline.oci.digest import Digest
from secure_pipeline.ports import ChangedFile, Runtime

CONFIG = str(Digest.of(b"config"))


class RuntimeContract:
    """Two containers run, ``one`` (read-only) and ``two``, of one image; ``two`` gets changed."""

    def test_lists_all_by_what_runs(self, runtime: Runtime) -> None:
        """Each is there once, running, with the runtime's id and an image digest."""
        found = runtime.containers()
        assert sorted(each.place.rpartition("/")[2] for each in found) == ["one", "two"]
        assert len({each.id for each in found}) == 2
        for each in found:
            Digest.parse(each.image.rpartition("@")[2])
            assert each.running
            assert each.started
        assert {each.place.rpartition("/")[2]: each.read_only for each in found} == {
            "one": True,
            "two": False,
        }

    def test_two_listings_agree(self, runtime: Runtime) -> None:
        """What did not change is equal when it is listed again."""
        assert set(runtime.containers()) == set(runtime.containers())

    def test_unchanged_has_no_drift(self, runtime: Runtime) -> None:
        """An empty answer, not None, where everything can be seen and nothing differs."""
        assert [runtime.drift(each) for each in runtime.containers()] == [(), ()]

    def test_a_changed_executable_is_seen(self, runtime: Runtime, changed: ChangedFile) -> None:
        """By path, in the container that it was changed in only."""
        found = {each.place.rpartition("/")[2]: each for each in runtime.containers()}
        assert runtime.drift(found["two"]) == (changed,)
        assert runtime.drift(found["one"]) == ()

    def test_drift_of_what_is_gone_is_unavailable(
        self, runtime: Runtime, request: pytest.FixtureRequest
    ) -> None:
        """A container that ended between listing and looking is no answer."""
        found = {each.place.rpartition("/")[2]: each for each in runtime.containers()}
        request.getfixturevalue("ended")
        with pytest.raises(Unavailable):
            runtime.drift(found["two"])

    def test_nothing_is_a_usage_error(self, empty: Runtime) -> None:
        """Zero containers are never an empty list, and the hint says what to type."""
        with pytest.raises(UsageError) as caught:
            empty.containers()
        assert caught.value.hint


class TestFakeRuntime(RuntimeContract):
    """The fake keeps the contract."""

    @pytest.fixture
    def runtime(self) -> FakeRuntime:
        return FakeRuntime([container(CONFIG, "one", read_only=True), container(CONFIG, "two")])

    @pytest.fixture
    def changed(self, runtime: FakeRuntime) -> ChangedFile:
        file = ChangedFile("/opt/tool", "changed")
        runtime.changed = {"id-two": (file,)}
        return file

    @pytest.fixture
    def ended(self, runtime: FakeRuntime) -> None:
        runtime.running.pop()

    @pytest.fixture
    def empty(self) -> FakeRuntime:
        return FakeRuntime()


def test_the_fake_says_what_it_is_told() -> None:
    """Listings one after another, errors among them."""
    error: PipelineError = Unavailable("away")
    one = container(CONFIG)
    runtime = FakeRuntime([one], listings=[[one, one], error])
    assert len(runtime.containers()) == 2
    with pytest.raises(Unavailable):
        runtime.containers()
    assert runtime.containers() == (one,)
