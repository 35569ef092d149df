"""The router port on a real nginx, with traffic through it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from contracts.test_router_contract import Elsewhere, RouterContract
from fakes.named import Named, answers, blue_and_green, ports
from fakes.nginx import CONFIG, RunningNginx, nginx
from fakes.routerprocess import wait_until
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.nginx import Nginx, render
from secure_pipeline.errors import Unavailable

pytestmark = pytest.mark.integration
FIVE = Fraction(1, 20)
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def servers() -> Iterator[dict[str, Named]]:
    with blue_and_green() as found:
        yield found


@pytest.fixture
def running(tmp_path: Path, servers: dict[str, Named]) -> Iterator[RunningNginx]:
    with nginx(tmp_path / "n", ports(servers)) as found:
        yield found


@pytest.fixture
def router(running: RunningNginx) -> Nginx:
    return Nginx(running.target_router, running.control, SystemClock())


class TestNginx(RouterContract):
    """nginx keeps the contract."""

    @pytest.fixture
    def elsewhere(self, running: RunningNginx, router: Nginx) -> Elsewhere:
        def change(one: str, weight: int, other: str, rest: int) -> None:
            weights = {one: weight, other: rest}
            running.file.write_bytes(render(running.target_router, weights))
            running.control.reload()
            router._wait(weights)

        return change


def test_traffic_follows_the_weights(running: RunningNginx, router: Nginx) -> None:
    """400 requests at 5 %: 20 to the canary, in turn; all at 100 %, none at 0."""
    assert answers(running.url, 50) == {"blue": 50}
    router.set("green", FIVE)
    assert 8 <= answers(running.url, 400)["green"] <= 21
    router.set("green", Fraction(1))
    assert answers(running.url, 50) == {"green": 50}
    router.set("green", Fraction(0))
    assert answers(running.url, 50) == {"blue": 50}


def test_a_killed_baseline_gives_nothing_away(
    running: RunningNginx, router: Nginx, servers: dict[str, Named]
) -> None:
    """No failover: a dead baseline's requests fail, and the canary gets its share."""
    router.set("green", FIVE)
    servers["blue"].end()
    found = answers(running.url, 200)
    assert found["green"] <= 11
    assert found["502"] == 200 - found["green"]
    assert router.read().shares["green"] == FIVE


def test_a_broken_configuration_leaves_the_old_in_force(
    running: RunningNginx, router: Nginx
) -> None:
    """Anywhere in it: the old file is back, nginx's own words are the message, nothing moved."""
    router.set("green", FIVE)
    before, config = running.file.read_bytes(), running.config.read_text()
    running.config.write_text(config.replace("events", "evnts"))
    with pytest.raises(Unavailable, match='unknown directive "evnts"'):
        router.set("green", Fraction(1, 4))
    assert running.file.read_bytes() == before
    running.config.write_text(config)
    assert router.read().shares["green"] == FIVE
    assert running.file.stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_not_in_force_counts(running: RunningNginx, router: Nginx) -> None:
    """Written and not reloaded: any reload would do it, so the greater share counts."""
    router.set("green", FIVE)
    running.file.write_bytes(render(running.target_router, {"blue": 70, "green": 30}))
    found = router.read()
    assert found.shares == {"blue": Fraction(19, 20), "green": Fraction(3, 10)}
    assert "inference.conf has blue weight 70, green weight 30" in found.detail
    router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


def test_a_file_that_somebody_edited(running: RunningNginx, router: Nginx) -> None:
    """What it tells and what it does may differ then: no answer until the next ``set``."""
    text = running.file.read_text()
    running.file.write_text(text.replace("down;", "weight=1;"))
    with pytest.raises(Unavailable, match="not as promote writes it"):
        router.read()
    router.set("green", Fraction(0))
    assert router.read().shares == {"blue": 1, "green": 0}


def test_without_a_file_at_first(running: RunningNginx, router: Nginx) -> None:
    """A refused first file is removed again; a good one stays."""
    config = running.config.read_text()
    running.file.unlink()
    with pytest.raises(Unavailable, match="cannot read"):
        router.read()
    running.config.write_text(config + "bogus;")
    with pytest.raises(Unavailable, match="nginx refuses its configuration"):
        router.set("green", FIVE)
    assert not running.file.exists()
    running.config.write_text(config)
    router.set("green", FIVE)
    assert router.read().shares["green"] == FIVE


def test_nginx_is_killed(running: RunningNginx, router: Nginx) -> None:
    """Unavailable; the hint names the socket that it left behind; once started, all is well."""
    router.set("green", FIVE)
    running.kill()
    with pytest.raises(Unavailable, match="nobody answers") as caught:
        router.read()
    assert f"first remove {running.socket}" in str(caught.value.hint)
    with pytest.raises(Unavailable):
        Nginx(running.target_router, running.control, SystemClock(), settle=0.5).set(
            "green", Fraction(0)
        )
    running.socket.unlink()
    running.start()
    assert router.read().shares == {"blue": 1, "green": 0}


def test_a_master_that_hangs(running: RunningNginx, router: Nginx) -> None:
    """It is told to reload and does not: Unavailable in time, and the read-back knows both."""
    router.set("green", FIVE)
    router = Nginx(running.target_router, running.control, SystemClock(), settle=0.5)
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="did not take the new weights") as caught:
            router.set("green", Fraction(0))
        assert "blue weight 95, green weight 5" in str(caught.value)
        assert router.read().shares == {"blue": 1, "green": FIVE}
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    wait_until(lambda: router.read().shares["green"] == 0, "nginx takes the file in the end")


def test_workers_that_hang(running: RunningNginx, router: Nginx) -> None:
    """They accept and say nothing: Unavailable within the time for a read."""
    pid = running.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    router = Nginx(running.target_router, running.control, SystemClock(), timeout=0.3)
    for worker in workers:
        os.kill(int(worker), signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="no whole answer in time"):
            router.read()
    finally:
        for worker in workers:
            os.kill(int(worker), signal.SIGCONT)


def test_a_directory_that_others_may_enter(running: RunningNginx, router: Nginx) -> None:
    """Somebody else's socket could tell anything; so it is not even asked."""
    running.socket.parent.chmod(0o755)
    for call in (router.read, lambda: router.set("green", FIVE)):
        with pytest.raises(Unavailable, match="only this user's") as caught:
            call()
        assert caught.value.hint == f"install -d -m 700 {running.socket.parent}"
    running.socket.parent.chmod(0o700)
    assert router.read().shares == {"blue": 1, "green": 0}


def test_nginx_with_other_servers_than_the_target(running: RunningNginx, router: Nginx) -> None:
    """What runs is another target's: its weights say nothing about these slots."""
    config = running.target_router
    swapped = dict(zip(config.servers, reversed(config.servers.values()), strict=True))
    other = Nginx(replace(config, servers=swapped), running.control, SystemClock())
    with pytest.raises(Unavailable, match="another server"):
        other.read()


def test_the_page_shows_what_works(tmp_path: Path, servers: dict[str, Named]) -> None:
    """Both fragments of docs/how-to/routers.md, with this test's ports and paths."""
    blocks = (ROOT / "docs/how-to/routers.md").read_text().split("```nginx\n")[1:]
    main, file = (block.split("```")[0] for block in blocks)
    head, _, http = CONFIG.partition("http {{")
    temporary = http.partition("include")[0]
    shown = main.replace("{", "{{").replace("}", "}}").replace("http {{", f"http {{{{{temporary}")
    for fixed, ours in (
        ("/etc/nginx/promote/inference.conf", "{directory}/inference.conf"),
        ("127.0.0.1:8080", "127.0.0.1:{port}"),
    ):
        assert fixed in shown
        shown = shown.replace(fixed, ours)
    with nginx(tmp_path / "n", ports(servers), config=head + shown) as running:
        for fixed, now in (
            ("unix:/run/promote/inference.sock", f"unix:{running.socket}"),
            ("127.0.0.1:8001", f"127.0.0.1:{running.slots['blue']}"),
            ("127.0.0.1:8002", f"127.0.0.1:{running.slots['green']}"),
        ):
            assert fixed in file
            file = file.replace(fixed, now)
        running.file.write_text(file)
        running.control.check()
        router = Nginx(running.target_router, running.control, SystemClock())
        assert router.read().shares == {"blue": 1, "green": 0}
        router.set("green", FIVE)
        assert 8 <= answers(running.url, 400)["green"] <= 21
