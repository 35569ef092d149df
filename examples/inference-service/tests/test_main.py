"""The program: start, signals and wrong settings."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from inference_service.__main__ import main


@pytest.fixture(autouse=True)
def _signals_as_before():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(monkeypatch, capsys, number):
    """SIGTERM and SIGINT end the program with 0."""
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("HOST", "127.0.0.1")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    assert main() == 0
    assert "version dev listens on port " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "x", "PORT"),
        ("REDIS_URL", "rediss://:hidden@h", "Redis URL"),
        ("HOST", "192.0.2.1", "assign"),
    ],
)
def test_wrong_settings_are_one_line(monkeypatch, capsys, name, value, message):
    """A wrong setting ends the program with 2 and one line that shows no password."""
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv(name, value)
    assert main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert "hidden" not in error


def test_the_program_as_a_process(tmp_path):
    """Started as in the image, it answers, and SIGTERM lets a running answer end."""
    environment = {
        "PORT": "0", "HOST": "127.0.0.1", "VERSION": "p1", "TOKEN_DELAY_MS": "20",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_service"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        answers = []

        def ask():
            body = json.dumps({"context_id": "c", "prompt": "The", "max_tokens": 40}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/generate",
                body,
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=20) as response:
                answers.append(json.loads(response.read()))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        thread.join(20)
        assert process.wait(20) == 0
        assert answers[0]["tokens"] == 40
        assert answers[0]["version"] == "p1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
