"""What people and programs see while a promotion goes: one of three views, by the stream."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from fractions import Fraction
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.promotions import CASES, HOSTILE, healthy, latency, loaded, no_data
from secure_pipeline import strictjson
from secure_pipeline.canary.story import Moment
from secure_pipeline.cli._output import Output
from secure_pipeline.cli._promotion import JsonView, LiveView, PlainView, promotion_view
from secure_pipeline.report.promotion_json import moment_document
from secure_pipeline.report.promotion_text import moment_line

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TerminalOutput(Output):
    """Output to a terminal of ours."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.terminal = Terminal()

    @property
    def stream(self) -> TextIO:
        return self.terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> TerminalOutput:
    """80 columns and 40 lines, with colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (("COLUMNS", "80"), ("LINES", "40"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    return TerminalOutput()


def shown(output: TerminalOutput, *moments: Moment, image: str | None = "team/app") -> str:
    """The last thing that is on the screen, without colours."""
    view = promotion_view(output, loaded(), image)
    assert isinstance(view, LiveView)
    with view:
        for moment in moments:
            view(moment)
    frames = ANSI.sub("", output.terminal.getvalue().replace("\r", "")).split("production: ")
    return "production: " + frames[-1]


def test_the_stream_chooses_the_view(terminal: TerminalOutput) -> None:
    """A terminal is drawn on, a file gets lines, --json gets documents wherever it goes."""
    assert isinstance(promotion_view(terminal, loaded(), None), LiveView)
    assert type(promotion_view(Output(as_json=False), loaded(), None)) is PlainView
    assert isinstance(promotion_view(Output(as_json=True), loaded(), None), JsonView)


def test_lines_for_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each moment is a line of its own."""
    moments = healthy()[0].moments
    with promotion_view(Output(as_json=False), loaded(), None) as view:
        for moment in moments:
            view(moment)
    assert capsys.readouterr().out.splitlines() == [moment_line(moment) for moment in moments]


def test_documents_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each moment is one line of strict JSON on stdout, with version and kind."""
    moments = CASES["hostile"]()[0].moments
    with promotion_view(Output(as_json=True), loaded(), None) as view:
        for moment in moments:
            view(moment)
    lines = capsys.readouterr().out.splitlines()
    head = {"apiVersion": "secure-pipeline/v1", "kind": "PromotionMoment"}
    assert [strictjson.loads(line.encode()) for line in lines] == [
        {**head, **moment_document(moment)} for moment in moments
    ]


def test_the_screen_shows_what_decides(terminal: TerminalOutput) -> None:
    """Both shares, both versions, both kinds of evidence, the row, the rule and its why."""
    moments = healthy()[0].moments[:20]
    text = shown(terminal, *moments)
    for words in (
        "watching  step 1 of 3  1 min 35 s of at most 30 min",
        "intended  ━━──────────────────────────── 5%",
        "tokens              180      3384",
        "slow tokens       1.67%     0.44%         0.81%           0.44%",
        "latency shown bad     ──────────",
        "undetermined by latency: 1.67% of 180 tokens over 150 ms, limit 5%",
        "0 healthy looks in a row, 3 needed, decided in about 36 s",
        "step 1 begins: 5% of the traffic goes to green",
    ):
        assert words in text


def test_an_abort_stays_on_the_screen(terminal: TerminalOutput) -> None:
    """After the end the last look, the rule and the notes are still there."""
    text = shown(terminal, *latency()[0].moments)
    assert "aborted  step 1 of 3" in text
    assert "bad by latency: 98.72% of 156 tokens" in text
    assert "no traffic to green" in text
    assert "healthy looks in a row" not in text


def test_no_data_is_never_a_number(terminal: TerminalOutput) -> None:
    """A look without a window shows words, and no evidence."""
    text = shown(terminal, *no_data()[0].moments[:5])
    assert text.count("no data") == 12
    assert "shown healthy" not in text


def test_a_share_that_was_not_read_back_is_no_zero(terminal: TerminalOutput) -> None:
    """A router that does not answer is told in words; a share over the intended one too."""
    moment = healthy()[0].moments[3]
    assert "not read back" in shown(terminal, replace(moment, routed=None))
    assert re.search(
        "read back ━+─+ 6.25%", shown(terminal, replace(moment, routed=Fraction(1, 16)))
    )


def test_an_abort_on_request_has_no_image(terminal: TerminalOutput) -> None:
    """Nothing is said of an image that was not named, and nothing breaks before a moment."""
    assert "nothing was moved yet" in shown(terminal, image=None)


@pytest.mark.parametrize("case", CASES)
def test_every_line_fits_80_columns(case: str, terminal: TerminalOutput) -> None:
    """No line of any moment is wider than the screen, and the whole is not higher."""
    text = shown(terminal, *CASES[case]()[0].moments[-3:], image=f"team/app@sha256:{'a' * 64}")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert len(text.splitlines()) <= 40


@given(text=st.text(max_size=60) | st.just(HOSTILE))
def test_no_text_controls_the_terminal(text: str) -> None:
    """Names, reasons and notes never reach the terminal as control or as markup of rich."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm-256color")
        patch.delenv("NO_COLOR", raising=False)
        moment = MOMENT
        assert moment.look is not None
        rules = (replace(moment.look.rules[0], rule=f"query:{text}", why=text),)
        bent = replace(moment, note=text, look=replace(moment.look, rules=rules))
        assert not CONTROL.search(shown(TerminalOutput(), bent, image=f"[bold]{text}"))


MOMENT = next(moment for moment in reversed(latency()[0].moments) if moment.look)
