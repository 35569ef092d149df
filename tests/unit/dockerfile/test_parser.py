"""Dockerfiles: what is read, with which lines, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.dockerfile.parser import MAX_BYTES, Dockerfile, parse
from secure_pipeline.dockerfile.words import BadWord, expand, split_words
from secure_pipeline.errors import ConfigError

EXAMPLE = b"""\
# syntax=docker/dockerfile:1
# escape=`
ARG BASE=debian
FROM --platform=linux/amd64 ${BASE} AS Build
# a comment
RUN one && `
    # within

    two
COPY --chown=1:1 --from=other /a /b
RUN --mount=type=cache,target=/c --mount=type=bind,from=tool,src=/x,target=/y make
RUN cat <<EOF <<-"END"
first
EOF
\t\tsecond
\tEND
FROM build
ONBUILD ADD https://x/y /z
"""


def lines(dockerfile: Dockerfile) -> list[tuple[str, int, int]]:
    return [(item.keyword, item.line, item.end_line) for item in dockerfile.instructions]


def test_every_instruction_keeps_its_lines() -> None:
    """Directives, continuations, comments and here-documents do not move a line."""
    dockerfile = parse(EXAMPLE)
    assert lines(dockerfile) == [
        ("ARG", 3, 3),
        ("FROM", 4, 4),
        ("RUN", 6, 9),
        ("COPY", 10, 10),
        ("RUN", 11, 11),
        ("RUN", 12, 16),
        ("FROM", 17, 17),
        ("ONBUILD", 18, 18),
    ]
    first, second = dockerfile.stages
    assert (first.name, first.platform, first.image) == ("build", "linux/amd64", "${BASE}")
    assert (second.name, second.image, second.line) == (None, "build", 17)
    assert dockerfile.directives["syntax"] == ("docker/dockerfile:1", 1)


def test_parts_of_instructions_are_found() -> None:
    """Flags, mounts, joined text, here-documents and triggers are told apart."""
    run, copy, mounts, heredocs = parse(EXAMPLE).stages[0].instructions[1:]
    assert run.text == "RUN one &&     two"
    assert copy.flags == {"chown": "1:1", "from": "other"}
    assert mounts.mounts == ("type=cache,target=/c", "type=bind,from=tool,src=/x,target=/y")
    assert [(doc.name, doc.content) for doc in heredocs.heredocs] == [
        ("EOF", "first"),
        ("END", "\t\tsecond"),
    ]
    trigger = parse(EXAMPLE).stages[1].instructions[1].trigger
    assert trigger is not None
    assert trigger.keyword == "ADD"


def test_a_directive_counts_only_at_the_top() -> None:
    """After any other comment '# escape=' is a comment."""
    assert parse(b"# hello\n# escape=`\nFROM scratch\n").escape == "\\"


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    """CRLF and a BOM change nothing."""
    assert lines(parse(b"\xef\xbb\xbfFROM scratch\r\nUSER 1\r\n")) == [
        ("FROM", 1, 1),
        ("USER", 2, 2),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 1, "no FROM"),
        (b"# only\n\n", 3, "no FROM"),
        (b"FROM a\nRUNN x\n", 2, "unknown instruction"),
        (b"FROM a\nRUN\n", 2, "needs an argument"),
        (b"FROM a\nCOPY --from=b\n", 2, "needs an argument"),
        (b"RUN x\nFROM a\n", 1, "before the first FROM"),
        (b"FROM a as\n", 1, "FROM needs"),
        (b"FROM a AS b c\n", 1, "FROM needs"),
        (b"FROM a AS 1b\n", 1, "not a stage name"),
        (b"FROM a AS b\nFROM c AS B\n", 2, "given twice"),
        (b"FROM a\nRUN <<EOF\nx\n", 2, "does not end"),
        (b"# escape=x\nFROM a\n", 1, "escape must be"),
        (b"# escape=`\n# escape=`\nFROM a\n", 2, "given twice"),
        (b"FROM a\nONBUILD FROM b\n", 2, "cannot be an ONBUILD"),
        (b"FROM a\nRUN a\x00b\n", 2, "control character"),
        (b"FROM a\nRUN a\xe2\x80\xa8b\n", 2, "control character"),
        (b"FROM a\n\xff\n", 2, "not UTF-8"),
        (b"FROM 'a\n", 1, "not closed"),
        (b"FROM a\nCOPY --from=a --from=b x y\n", 2, "given twice"),
    ],
)
def test_what_does_not_parse_is_named_by_file_and_line(
    text: bytes, line: int, message: str
) -> None:
    """A broken Dockerfile is a configuration error at its line (exit 3)."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "docker/App.Dockerfile")
    assert caught.value.where == f"docker/App.Dockerfile:{line}"
    assert message in caught.value.message
    assert caught.value.exit_code == 3


def test_a_near_instruction_is_suggested() -> None:
    """The hint says which instruction was probably meant."""
    with pytest.raises(ConfigError) as caught:
        parse(b"FROM a\nCPOY a b\n")
    assert caught.value.hint == "did you mean COPY?"


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    """One byte over the limit is an error, not a truncation."""
    with pytest.raises(ConfigError, match="limit"):
        parse(b"#" * (MAX_BYTES + 1))


pieces = st.sampled_from(
    ["FROM a", "RUN x", "ARG A=b", "\\", "`", "\n", " ", "# escape=`\n", "<<EOF", "EOF", '"', "'",
     "--from=", "ONBUILD ", "$", "${A:-", "}", "\t", "é", "COPY . /x", "[", ",", "=", "#"]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=25).map("".join).map(str.encode))
)
def test_any_bytes_give_instructions_within_the_file_or_a_located_error(data: bytes) -> None:
    """The parser never crashes, and every line it names exists."""
    count = data.count(b"\n") + 1
    try:
        dockerfile = parse(data)
    except ConfigError as error:
        line = int(str(error.where).partition(":")[2])
    else:
        line = dockerfile.stages[-1].line
    assert 1 <= line <= count


@given(st.lists(pieces, max_size=25).map("".join).map(str.encode))
def test_instructions_follow_each_other(data: bytes) -> None:
    """No two instructions share a line, and none ends after the file."""
    count = data.count(b"\n") + 3
    try:
        dockerfile = parse(b"FROM a\n" + data + b"\n")
    except ConfigError:
        return
    previous = 0
    for item in dockerfile.instructions:
        assert previous < item.line <= item.end_line <= count
        previous = item.end_line


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("${NONE}", ""),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:+y}${NONE:+n}", "y"),
        ("${NONE:-${A}}", "one"),
        ("'$A'", "$A"),
        ('"$A b"', "one b"),
        (r"\$A", "$A"),
        ("$", "$"),
    ],
)
def test_variables_are_replaced_as_in_a_build(word: str, expected: str) -> None:
    """Defaults, alternatives, quotes and escapes follow the Dockerfile reference."""
    assert expand(word, {"A": "one", "EMPTY": ""}) == expected


@pytest.mark.parametrize("word", ["${", "${A", "${A%x}", "${A:?x}", "'a", "${A:-'"])
def test_what_cannot_be_expanded_is_an_error(word: str) -> None:
    """An unknown modifier or an open brace is never passed on as text."""
    with pytest.raises(BadWord):
        expand(word, {"A": "1"})


def test_growing_variables_are_bounded() -> None:
    """A variable that multiplies itself ends in an error."""
    with pytest.raises(BadWord, match="grows"):
        expand("$A" * 2000, {"A": "x" * 1000})


def test_words_keep_quotes() -> None:
    """White space within quotes does not split."""
    assert split_words("a 'b c' \"d e\" f\\ g") == ["a", "'b c'", '"d e"', "f\\ g"]
