"""The one place that starts programs: limits, ends, secrets, isolation."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_pipeline.errors import Interrupted, Unavailable
from secure_pipeline.tools.process import Command, Limits, Outcome, Processes


def python(code: str, tmp_path: Path, **options: Any) -> Command:
    settings = {"cwd": tmp_path, "env": {}, "timeout": 30.0} | options
    return Command(argv=(sys.executable, "-I", "-c", code, *options.pop("words", ())), **settings)


def run(command: Command, on_line: Callable[[str], None] | None = None) -> Outcome:
    return Processes(threading.Event()).run(command, on_line)


def is_running(pid: int) -> bool:
    """True for a process that is alive; a zombie that waits for its parent is not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not come true")


FAMILY = """
import os, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))
        os.rename(sys.argv[1] + '.new', sys.argv[1])
    {after}
    time.sleep(600)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
{parent}
"""
"""A program whose child has a child, which writes its id into a file."""


def family(tmp_path: Path, *, parent: str, after: str = "", **options: Any) -> tuple[Command, Path]:
    pid_file = tmp_path / "grandchild"
    code = FAMILY.format(parent=parent, after=after)
    settings = {"cwd": tmp_path, "env": {}, "timeout": 30.0} | options
    return Command(argv=(sys.executable, "-I", "-c", code, str(pid_file)), **settings), pid_file


def test_both_streams_and_the_exit_code_are_kept(tmp_path: Path) -> None:
    """A command's stdout, stderr and exit code come back apart from each other."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    outcome = run(python(code, tmp_path))
    assert (outcome.stdout, outcome.stderr, outcome.returncode) == (b"out\n", b"err\n", 3)
    assert not outcome.ok
    assert outcome.describe().endswith("exited with 3")
    assert outcome.tail() == "err"


def test_nothing_of_the_environment_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program sees exactly the variables its command names (SBX-08, SCN-06)."""
    monkeypatch.setenv("SENTINEL_TOKEN", "hunter2")
    outcome = run(Command(("/usr/bin/env",), cwd=tmp_path, env={"ONLY": "this"}, timeout=30))
    assert outcome.stdout == b"ONLY=this\n"


def test_cli_06_a_name_without_a_path_is_never_searched(tmp_path: Path) -> None:
    """A command must name an absolute path: PATH is not searched."""
    with pytest.raises(ValueError, match="absolute"):
        Command(("trivy",), cwd=tmp_path, env={}, timeout=1)
    with pytest.raises(ValueError, match="absolute"):
        Command((), cwd=tmp_path, env={}, timeout=1)


def test_a_missing_program_is_unavailable(tmp_path: Path) -> None:
    """A program that is not there is an error of exit code 4 that names it."""
    with pytest.raises(Unavailable, match="No such file") as caught:
        run(Command((str(tmp_path / "absent"),), cwd=tmp_path, env={}, timeout=5))
    assert caught.value.exit_code == 4
    assert str(tmp_path / "absent") in str(caught.value)


def test_a_file_that_is_no_program_is_unavailable(tmp_path: Path) -> None:
    """A file that the kernel cannot execute is an error, not a traceback."""
    program = tmp_path / "garbage"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match="Exec format"):
        run(Command((str(program),), cwd=tmp_path, env={}, timeout=5))


def test_the_deadline_ends_grandchildren_too(tmp_path: Path) -> None:
    """At the deadline the whole group is killed, and the outcome is never a success."""
    command, pid_file = family(tmp_path, parent="time.sleep(600)", timeout=2.0)
    outcome = run(command)
    assert outcome.timed_out
    assert not outcome.ok
    assert "timed out" in outcome.describe()
    wait_until(lambda: not is_running(int(pid_file.read_text())))


def test_the_deadline_holds_for_one_that_ignores_signals(tmp_path: Path) -> None:
    """A program that ignores SIGTERM and SIGINT still ends at its deadline."""
    code = (
        "import signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "time.sleep(600)"
    )
    outcome = run(python(code, tmp_path, timeout=0.5))
    assert outcome.timed_out
    assert outcome.returncode == -signal.SIGKILL


def test_one_that_closed_its_output_still_has_a_deadline(tmp_path: Path) -> None:
    """Closing both streams does not hide a program that keeps running."""
    code = "import os, time; os.close(1); os.close(2); time.sleep(600)"
    assert run(python(code, tmp_path, timeout=0.5)).timed_out


def test_a_child_that_outlives_its_parent_is_ended(tmp_path: Path) -> None:
    """What a program leaves running in its group is gone when run() returns."""
    command, pid_file = family(tmp_path, parent="", after="os.close(0); os.close(1); os.close(2)")
    outcome = run(command)
    assert outcome.ok
    wait_until(lambda: not is_running(int(pid_file.read_text())))


def test_output_over_the_limit_is_cut_and_is_no_success(tmp_path: Path) -> None:
    """An output flood keeps only the limit, says so, and the exit code 0 does not count."""
    code = "import sys; sys.stdout.write('x' * 5_000_000)"
    outcome = run(python(code, tmp_path, output_limit=1000))
    assert len(outcome.stdout) == 1000
    assert outcome.returncode == 0
    assert outcome.truncated
    assert not outcome.ok
    assert "output limit" in outcome.describe()


def test_output_of_exactly_the_limit_is_whole(tmp_path: Path) -> None:
    """The limit itself is still allowed."""
    outcome = run(python("print('x' * 999)", tmp_path, output_limit=1000))
    assert outcome.ok
    assert len(outcome.stdout) == 1000


def test_lines_are_seen_as_they_come(tmp_path: Path) -> None:
    """on_line sees each line of both streams once, a last one without newline too."""
    lines: list[str] = []
    code = "import sys; print('a'); print('b', file=sys.stderr); sys.stdout.write('c')"
    run(python(code, tmp_path), lines.append)
    assert sorted(lines) == ["a", "b", "c"]


def test_cli_01_output_that_is_not_utf8_is_kept_and_shown(tmp_path: Path) -> None:
    """Bytes that are no text neither fail nor change what is kept."""
    lines: list[str] = []
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')"
    outcome = run(python(code, tmp_path), lines.append)
    assert outcome.stdout == b"\xff\xfe\n"
    assert lines == ["\ufffd\ufffd"]


def test_standard_input_of_any_size_arrives(tmp_path: Path) -> None:
    """Input larger than a pipe arrives whole while output is read at the same time."""
    data = os.urandom(1 << 20)
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert run(python(code, tmp_path, stdin=data)).stdout == data


def test_without_input_standard_input_is_empty(tmp_path: Path) -> None:
    """A program never reads from the terminal of whoever runs the pipeline."""
    outcome = run(python("import sys; print(len(sys.stdin.read()))", tmp_path))
    assert outcome.stdout == b"0\n"


def test_one_that_does_not_read_its_input_is_no_error(tmp_path: Path) -> None:
    """A program may end before it has read everything."""
    outcome = run(python("", tmp_path, stdin=b"x" * (4 << 20)))
    assert outcome.returncode == 0


def test_death_by_a_signal_is_told(tmp_path: Path) -> None:
    """A killed program is described by its signal and is no success."""
    outcome = run(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", tmp_path))
    assert not outcome.ok
    assert outcome.describe().endswith("was killed by SIGSEGV")


def test_cli_03_cancelling_ends_the_group_and_interrupts(tmp_path: Path) -> None:
    """Setting the event ends grandchildren too and raises Interrupted (exit 130)."""
    cancelled = threading.Event()
    command, pid_file = family(tmp_path, parent="print('ready', flush=True); time.sleep(600)")
    with pytest.raises(Interrupted) as caught:
        Processes(cancelled).run(command, lambda line: cancelled.set())
    assert caught.value.exit_code == 130
    wait_until(lambda: not is_running(int(pid_file.read_text())))


def test_nothing_starts_once_cancelled(tmp_path: Path) -> None:
    """After cancellation no further program is started."""
    cancelled = threading.Event()
    cancelled.set()
    marker = tmp_path / "started"
    with pytest.raises(Interrupted):
        Processes(cancelled).run(python(f"open({str(marker)!r}, 'w')", tmp_path))
    assert not marker.exists()


def test_cli_03_an_exception_while_waiting_ends_the_group(tmp_path: Path) -> None:
    """Ctrl-C is an exception in the caller's loop: nothing is left running behind it."""
    command, pid_file = family(tmp_path, parent="print('ready', flush=True); time.sleep(600)")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(command, interrupt)
    wait_until(lambda: not is_running(int(pid_file.read_text())))


CONNECT = """
import socket, sys
try:
    socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)
    print('connected')
except OSError as error:
    print('refused')
"""


@pytest.mark.parametrize(("network", "answer"), [(True, b"connected\n"), (False, b"refused\n")])
def test_sbx_04_without_network_not_even_loopback_answers(
    tmp_path: Path, network: bool, answer: bytes
) -> None:
    """With network=False a listener of this host cannot be reached; otherwise it can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        argv = (sys.executable, "-I", "-c", CONNECT, port)
        command = Command(argv, cwd=tmp_path, env={}, timeout=30, network=network)
        assert run(command).stdout == answer


def test_sbx_04_without_network_abstract_sockets_are_out_of_reach(tmp_path: Path) -> None:
    """Abstract unix sockets belong to the network namespace and are cut off as well."""
    name = f"\0secure-pipeline-{os.getpid()}"
    code = (
        "import socket, sys\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        "print(peer.connect_ex('\\0' + sys.argv[1]) == 0)"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        for network, answer in ((True, b"True\n"), (False, b"False\n")):
            argv = (sys.executable, "-I", "-c", code, name[1:])
            command = Command(argv, cwd=tmp_path, env={}, timeout=30, network=network)
            assert run(command).stdout == answer


def test_sbx_07_without_the_isolating_helper_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If unshare is missing, a command that must have no network does not run at all."""
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    marker = tmp_path / "started"
    with pytest.raises(Unavailable, match="unshare") as caught:
        run(python(f"open({str(marker)!r}, 'w')", tmp_path, network=False))
    assert caught.value.hint
    assert not marker.exists()


def test_sbx_03_address_space_is_limited(tmp_path: Path) -> None:
    """A command over its memory limit fails instead of taking the machine."""
    code = "bytearray(1 << 30); print('allocated')"
    limits = Limits(address_space=256 << 20)
    outcome = run(python(code, tmp_path, limits=limits))
    assert not outcome.ok
    assert b"MemoryError" in outcome.stderr
    assert run(python(code, tmp_path)).stdout == b"allocated\n"


def test_sbx_03_file_size_is_limited(tmp_path: Path) -> None:
    """A command cannot write a file over its limit."""
    code = "open('big', 'wb').write(bytes(1 << 20))"
    outcome = run(python(code, tmp_path, limits=Limits(file_size=1 << 10)))
    assert not outcome.ok
    assert (tmp_path / "big").stat().st_size <= 1 << 10


def test_the_limit_of_processes_is_passed_on(tmp_path: Path) -> None:
    """The limit of processes is set for the command (SBX-01)."""
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC))"
    outcome = run(python(code, tmp_path, limits=Limits(processes=777)))
    assert outcome.stdout == b"(777, 777)\n"


def test_sbx_06_a_command_has_a_session_of_its_own(tmp_path: Path) -> None:
    """A command is leader of a new session, so it has no terminal to type into."""
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert run(python(code, tmp_path)).stdout == b"True\n"


def test_many_at_once_do_not_mix(tmp_path: Path) -> None:
    """Commands run from several threads keep their outputs apart."""
    answers: dict[int, bytes] = {}

    def one(number: int) -> None:
        answers[number] = run(python(f"print({number} * 1000)", tmp_path)).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: b"%d\n" % (number * 1000) for number in range(8)}


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    """Running commands leaves no open file behind."""
    run(python("", tmp_path, stdin=b"x"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run(python("", tmp_path, stdin=b"x"))
    assert len(os.listdir("/proc/self/fd")) == before
