"""A promotion as it goes: drawn again on a terminal, plain lines or JSON lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from secure_pipeline.canary.analysis import time_to_decision
from secure_pipeline.canary.model import Counts, Health, Look, NoData
from secure_pipeline.canary.story import Moment, Phase
from secure_pipeline.canary.target import LoadedTarget
from secure_pipeline.cli._output import Output
from secure_pipeline.report.foreign import visible
from secure_pipeline.report.promotion_json import moment_document
from secure_pipeline.report.promotion_text import (
    MAX_WHY,
    because,
    counted,
    duration,
    error_share,
    mean,
    moment_line,
    p95,
    percent,
    slow_share,
)

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

NOTES = 3
TREND = 12
"""Looks from which the time to a decision is estimated."""
BAR = 30
_STYLES = {
    Health.HEALTHY: "green",
    Health.BAD: "bold red",
    Health.UNDETERMINED: "yellow",
    Health.NO_DATA: "magenta",
}


class PromotionView(Protocol):
    """Shows moments while it is open."""

    def __enter__(self) -> PromotionView:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""  # fmt: skip

    def __call__(self, moment: Moment) -> None:
        """Show one moment."""


def promotion_view(output: Output, target: LoadedTarget, image: str | None) -> PromotionView:
    """The view that fits the stream; with ``--json``, a document a line on stdout."""
    if output.as_json:
        return JsonView(output)
    return LiveView(output, target, image) if output.colour else PlainView(output)


class PlainView:
    """One line a moment, for CI logs."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, moment: Moment) -> None:
        self._output.text(moment_line(moment))


class JsonView(PlainView):
    """One document of kind PromotionMoment a line."""

    def __call__(self, moment: Moment) -> None:
        self._output.line("PromotionMoment", moment_document(moment))


class LiveView:
    """The present state, drawn again at each moment; 80 columns are enough."""

    def __init__(self, output: Output, target: LoadedTarget, image: str | None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._target, self._image = target.target, image
        self._moment: Moment | None = None
        self._looks: deque[Look] = deque(maxlen=TREND)
        self._notes: deque[str] = deque(maxlen=NOTES)
        console = Console(file=output.stream)
        self._live = Live(get_renderable=self._render, console=console, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, moment: Moment) -> None:
        if self._moment and self._moment.step != moment.step:
            self._looks.clear()  # evidence begins anew with each step
        self._moment = moment
        if moment.look:
            self._looks.append(moment.look)
        if moment.note:
            self._notes.append(f"{moment.time:%H:%M:%S} {visible(moment.note, MAX_WHY)}")
        self._live.refresh()

    def _render(self) -> Group:
        from rich.console import Group

        parts = [_line(f"{self._target.name}: {' and '.join(self._target.slots)}", "bold")]
        if self._image:
            parts.append(_line(visible(self._image, 300)))
        if self._moment is None:
            return Group(*parts, _line("nothing was moved yet", "dim"))
        body: list[RenderableType] = [_state(self._moment), _traffic(self._moment)]
        if self._looks:
            look = self._looks[-1]
            body += [_line(""), _versions(look), _line(""), *_evidence(look), _decision(look)]
        if self._moment.phase is Phase.WATCHING:
            body.append(_line(self._pace(self._moment)))
        return Group(*parts, *body, *(_line(note, "dim") for note in self._notes))

    def _pace(self, moment: Moment) -> str:
        left = time_to_decision(tuple(self._looks))
        soon = f", decided in about {duration(left)}" if left else ""
        row = counted(moment.healthy_in_a_row, "healthy look")
        return f"{row} in a row, {moment.needed} needed{soon}"


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _state(moment: Moment) -> Text:
    from rich.text import Text

    style = {Phase.ABORTING: "bold red", Phase.ABORTED: "bold red", Phase.PROMOTED: "bold green"}
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(moment.phase.value, style.get(moment.phase, "bold cyan"))
    text.append(f"  step {moment.step} of {moment.steps}")
    if moment.phase is Phase.WATCHING:
        text.append(f"  {duration(moment.elapsed)} of at most {duration(moment.deadline)}")
    return text


def _traffic(moment: Moment) -> Table:
    """Two bars: what the canary may have, and what the router gives it."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    routed = moment.routed
    grid.add_row("intended ", _bar(float(moment.intended), "cyan"), percent(moment.intended))
    over = routed is not None and routed > moment.intended
    style = "bold red" if over else "green"
    read = "not read back" if routed is None else percent(routed)
    grid.add_row("read back", _bar(float(routed or 0), style), _line(read, style if over else ""))
    return grid


def _bar(share: float, style: str) -> Text:
    """A share of BAR cells; what is not 0 has one at least, what is not 1 leaves one."""
    from rich.text import Text

    full = min(max(round(share * BAR), share > 0), BAR - (share < 1))
    return Text.assemble(("━" * full, style), ("─" * (BAR - full), "dim"))


def _versions(look: Look) -> Table:
    """Both versions in the last window, and since the step began where it is known."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "canary", "baseline", "canary, step", "baseline, step"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    window = look.window
    for name, form, rule in _ROWS:
        seen = ["no data"] * 2
        if not isinstance(window, NoData):
            seen = [form(window.canary), form(window.baseline)]
        table.add_row(name, *seen, *_since(look, rule))
    return table


def _tokens(counts: Counts) -> str:
    return f"{counts.tokens:.0f}"


def _requests(counts: Counts) -> str:
    return f"{counts.requests:.0f}"


_ROWS: tuple[tuple[str, Callable[[Counts], str], str], ...] = (
    ("tokens", _tokens, ""),
    ("mean ms a token", mean, ""),
    ("p95 ms a token", p95, ""),
    ("slow tokens", slow_share, "latency"),
    ("requests", _requests, ""),
    ("failed requests", error_share, "errors"),
)
"""Name, cell, and the rule whose figures tell the same since the step began."""


def _since(look: Look, name: str) -> list[str]:
    """Shares of both versions since the step began; '' where no figure tells."""
    figures = next((rule.figures for rule in look.rules if rule.rule == name), {})
    found = (figures.get(f"{version}_share_step") for version in ("canary", "baseline"))
    return ["" if value is None else percent(value) for value in found]


def _evidence(look: Look) -> Iterator[RenderableType]:
    """How near each statistical rule is to either verdict."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    for rule in look.rules:
        if not rule.figures.keys() & {"toward_abort", "toward_health"}:
            continue
        name = _line(visible(rule.rule, 20))
        for word, key, style in (
            ("bad", "toward_abort", "red"),
            ("healthy", "toward_health", "green"),
        ):
            value = rule.figures.get(key, 0.0)
            grid.add_row(name, f"shown {word}", _bar(value, style), f"{int(value * 100)}%")
            name = _line("")
    if grid.rows:
        yield grid


def _decision(look: Look) -> Text:
    from rich.text import Text

    text = Text()
    text.append(look.health.value, _STYLES[look.health])
    text.append(f" by {because(look)}" if look.rules else "")
    return text
