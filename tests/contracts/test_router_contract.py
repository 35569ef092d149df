"""What every ports.Router promises; the fake passes here, real ones in tests/integration."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from fakes.router import FakeRouter, Fault
from secure_pipeline.errors import Unavailable
from secure_pipeline.ports import Router

Elsewhere = Callable[[str, int, str, int], None]
"""Gives two slots these weights without the router's ``set``."""
SHARES = [Fraction(1, 20), Fraction(1, 4), Fraction(1, 200), Fraction(1, 3), Fraction(0.37)]


class RouterContract:
    """Two slots, ``blue`` and ``green``; blue has all the traffic."""

    def test_the_beginning(self, router: Router) -> None:
        """What is in force is told for both slots, in shares and in words."""
        found = router.read()
        assert found.shares == {"blue": 1, "green": 0}
        assert found.detail
        assert "\n" not in found.detail

    def test_shares(self, router: Router) -> None:
        """Each share is in force, or the next smaller one that there is; never a greater one."""
        for share in SHARES:
            router.set("green", share)
            shares = router.read().shares
            assert share - Fraction(1, 200) < shares["green"] <= share
            assert shares["green"] > 0
            assert shares["blue"] == 1 - shares["green"]

    def test_per_cent_are_exact(self, router: Router) -> None:
        """What can be expressed is expressed, nothing and everything among it."""
        for percent in (0, 5, 25, 100, 50, 1, 0):
            router.set("green", Fraction(percent, 100))
            assert router.read().shares["green"] == Fraction(percent, 100)

    def test_repeating_does_no_harm(self, router: Router) -> None:
        """The same once more leaves it as it is."""
        for _ in range(3):
            router.set("green", Fraction(1, 20))
            assert router.read().shares == {"blue": Fraction(19, 20), "green": Fraction(1, 20)}

    def test_either_slot_can_be_the_canary(self, router: Router) -> None:
        """After a promotion the roles are exchanged."""
        router.set("green", Fraction(1))
        assert router.read().shares == {"blue": 0, "green": 1}
        router.set("blue", Fraction(1, 20))
        assert router.read().shares == {"blue": Fraction(1, 20), "green": Fraction(19, 20)}
        router.set("blue", Fraction(0))
        assert router.read().shares == {"blue": 0, "green": 1}

    def test_what_others_change_is_read(self, router: Router, elsewhere: Elsewhere) -> None:
        """Nothing is remembered: weights that somebody else set are in the next answer."""
        router.set("green", Fraction(1, 20))
        elsewhere("blue", 60, "green", 40)
        assert router.read().shares == {"blue": Fraction(3, 5), "green": Fraction(2, 5)}
        router.set("green", Fraction(1, 20))
        assert router.read().shares["green"] == Fraction(1, 20)
        elsewhere("blue", 0, "green", 100)
        router.set("green", Fraction(0))
        assert router.read().shares == {"blue": 1, "green": 0}

    @pytest.mark.parametrize("share", [Fraction(-1, 100), Fraction(101, 100)])
    def test_no_such_share(self, router: Router, share: Fraction) -> None:
        """A share is from 0 to 1; anything else is a bug, and changes nothing."""
        with pytest.raises(ValueError, match="a share of"):
            router.set("green", share)
        assert router.read().shares == {"blue": 1, "green": 0}


class TestFakeRouter(RouterContract):
    """The fake keeps the contract."""

    @pytest.fixture
    def router(self) -> FakeRouter:
        return FakeRouter()

    @pytest.fixture
    def elsewhere(self, router: FakeRouter) -> Elsewhere:
        def change(one: str, weight: int, other: str, rest: int) -> None:
            router.put(one, Fraction(weight, weight + rest))

        return change


def test_the_fake_fails_as_it_is_told() -> None:
    """Each fault does what it says, to one call."""
    router, green = FakeRouter(), Fraction(1, 20)
    router.faults.extend([Fault.FAIL, None, Fault.HALF, Fault.FAIL, None, Fault.APPLY, None])
    with pytest.raises(Unavailable):
        router.set("green", green)
    assert router.read().shares["green"] == 0
    with pytest.raises(Unavailable):
        router.set("green", green)
    with pytest.raises(Unavailable):
        router.read()
    assert router.read().shares["green"] == Fraction(1, 40)
    with pytest.raises(Unavailable):
        router.set("green", green)
    assert router.read().shares["green"] == green
    router.faults.extend([Fault.LOSE, lambda at: at.put("green", Fraction(1, 2))])
    router.set("green", Fraction(0))
    assert router.read().shares["green"] == Fraction(1, 2)
    assert router.history == [("green", green)] * 3 + [("green", Fraction(0))]


def test_the_fake_with_a_slot_down() -> None:
    """A baseline that is down gives its share to the canary; a canary's weight still counts."""
    router = FakeRouter()
    router.set("green", Fraction(1, 20))
    router.down = {"blue"}
    assert router.read().shares == {"blue": Fraction(19, 20), "green": 1}
    router.down = {"green"}
    assert router.read().shares == {"blue": 1, "green": Fraction(1, 20)}
    with pytest.raises(Unavailable):
        router.set("green", Fraction(1, 4))
    router.set("green", Fraction(0))
    router.down = {"blue"}
    with pytest.raises(Unavailable):
        router.set("green", Fraction(1, 4))
    assert router.read().shares == {"blue": 1, "green": 0}
