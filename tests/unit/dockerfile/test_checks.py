"""The rules of the build gate, on Dockerfiles as people write them."""

from __future__ import annotations

import pytest

from secure_pipeline.dockerfile.checks import Refusal, check
from secure_pipeline.dockerfile.images import Kind, base_of, image_uses, qualified, target_stage
from secure_pipeline.dockerfile.parser import parse
from secure_pipeline.dockerfile.rewrite import rewrite
from secure_pipeline.dockerfile.secrets import secret_name, secret_shape
from secure_pipeline.errors import ConfigError

DIGEST = "sha256:" + "a" * 64
TOKEN = "ghp_" + "Ab1" * 12


def refusals(text: str, args: dict[str, str] | None = None) -> list[tuple[str, int | None]]:
    found = check(parse(text.encode()), args or {}, ("debian-base",))
    return [(item.rule, item.line) for item in found]


@pytest.mark.parametrize(
    "text",
    [
        f"FROM registry.example/a:1@{DIGEST}\n",
        "FROM scratch\n",
        "FROM debian-base AS b\nFROM b\nCOPY --from=b /x /y\nCOPY --from=0 /x /y\n",
        f"ARG V={DIGEST}\nFROM debian@$V\n",
        "ARG BASE\nFROM ${BASE:-debian-base}\n",
        "ARG B=debian-base\nFROM ${B} AS x\nRUN --mount=type=bind,from=debian-base,target=/m x\n",
    ],
)
def test_bld_03_pinned_bases_stages_and_named_bases_are_accepted(text: str) -> None:
    """A digest, scratch, an earlier stage and a base of the configuration are exact."""
    assert refusals(text) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM debian\n", 1),
        ("FROM debian:latest AS x\n", 1),
        ("ARG T=12\nFROM debian:$T\n", 2),
        (f"FROM debian@{DIGEST}0\n", 1),
        ("FROM debian@sha256:short\n", 1),
        ("FROM debian-base AS a\nFROM b\nFROM debian-base AS b\n", 2),
        ("FROM debian-base\nCOPY --from=alpine /a /b\n", 2),
        ("FROM debian-base\nCOPY --from=1 /a /b\n", 2),
        ("FROM debian-base\nCOPY --from=$X /a /b\n", 2),
        ("FROM debian-base\nRUN --mount=target=/x,from=alpine true\n", 2),
        ("FROM debian-base\nONBUILD COPY --from=alpine /a /b\n", 2),
        ("# syntax=docker/dockerfile:1\nFROM debian-base\n", 1),
    ],
)
def test_bld_03_every_other_base_is_refused_at_its_line(text: str, line: int) -> None:
    """Tags, variables, forward references, other images and frontends are no digests."""
    assert refusals(text) == [("unpinned-base", line)]


def test_bld_03_a_build_argument_decides_what_from_is() -> None:
    """The value given for the build, not the default, is what is checked."""
    text = "ARG BASE=debian-base\nFROM ${BASE}\n"
    assert refusals(text) == []
    assert refusals(text, {"BASE": "debian:latest"}) == [("unpinned-base", 2)]


def test_bld_03_an_argument_within_a_stage_does_not_reach_from() -> None:
    """Only ARG before the first FROM counts for a later FROM."""
    with pytest.raises(ConfigError, match="is empty"):
        refusals("FROM debian-base AS a\nARG B=debian-base\nFROM $B\n")


@pytest.mark.parametrize(
    "source",
    [
        "https://example.com/a.tgz",
        "HTTP://example.com/a",
        "git@github.com:x/y.git",
        "https://github.com/x/y.git#v1:sub",
        "ftp://x/y",
        "$URL",
        "${UNKNOWN}/x",
        "a.txt https://example.com/b",
    ],
)
def test_bld_05_a_remote_add_without_checksum_is_refused(source: str) -> None:
    """Whatever scheme or variable it comes through, content without a digest is refused."""
    text = f"FROM debian-base\nARG URL=https://example.com\nADD {source} /x\n"
    assert refusals(text) == [("add-without-checksum", 3)]


def test_bld_05_a_json_add_and_a_trigger_are_looked_into() -> None:
    """Neither the JSON form nor ONBUILD hides a remote source."""
    assert refusals('FROM debian-base\nADD ["https://x/y", "/z"]\n') == [
        ("add-without-checksum", 2)
    ]
    assert refusals("FROM debian-base\nONBUILD ADD https://x/y /z\n") == [
        ("add-without-checksum", 2)
    ]


@pytest.mark.parametrize(
    "add",
    [
        f"--checksum={DIGEST} https://example.com/a /a",
        f"--checksum={'b' * 40} https://github.com/x/y.git /a",
        "local.tgz /a",
        "--chown=1:1 . /a",
        "$DIR/x /a",
    ],
)
def test_bld_05_checksums_and_local_files_are_accepted(add: str) -> None:
    """ADD of the context, or of content with a digest, is exact."""
    assert refusals(f"FROM debian-base\nENV DIR=sub\nADD {add}\n") == []


def test_bld_05_a_checksum_that_is_none_is_refused() -> None:
    """A flag with anything but a digest is no checksum."""
    text = "FROM debian-base\nADD --checksum=sha256:zz https://x/y /z\n"
    assert refusals(text) == [("add-without-checksum", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "ARG NPM_TOKEN",
        "ARG db_password=x",
        "ARG A=1 API_KEY",
        "ENV AWS_SECRET_ACCESS_KEY=$X",
        "ENV PASSWORD hunter2",
        f"ENV HARMLESS={TOKEN}",
        f"RUN curl -H 'Authorization: {TOKEN}' https://x",
        "LABEL url=https://user:pass@example.com/x",
        f"RUN <<EOF\necho {TOKEN}\nEOF",
    ],
)
def test_bld_01_secret_looking_arguments_are_refused_and_never_shown(line: str) -> None:
    """A secret in ARG, ENV or a command stays in the history, so it is refused, unnamed."""
    found = check(parse(f"FROM debian-base\n{line}\n".encode()), {}, ("debian-base",))
    assert [(item.rule, item.line) for item in found] == [("secret-argument", 2)]
    assert TOKEN not in str(found)
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "line",
    ["ENV GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D", "ENV API_TOKEN=", "ARG MONKEY=1",
     "ENV TOKENIZER=bert", "ENV KEYBOARD=de", "RUN echo $PASSWORD_FILE", "ARG PWD=/x"],
)  # fmt: skip
def test_names_that_only_resemble_secrets_are_accepted(line: str) -> None:
    """A public key's fingerprint, an empty value and longer words are no secrets."""
    assert refusals(f"FROM debian-base\n{line}\n") == []


def test_bld_01_secret_build_arguments_are_refused_and_never_shown() -> None:
    """Names and values that the configuration hands to the build are looked at too."""
    dockerfile = parse(b"FROM debian-base\n")
    found = check(dockerfile, {"API_KEY": "s3cret", "X": TOKEN, "Y": "1"}, ("debian-base",))
    assert [item.subject for item in found] == ["build.args.API_KEY", "build.args.X"]
    assert "s3cret" not in str(found)
    assert TOKEN not in str(found)


def test_a_refusal_says_what_to_type() -> None:
    """Each refusal has a hint."""
    text = b"FROM debian\nADD https://x/y /z\nARG TOKEN\n"
    found: tuple[Refusal, ...] = check(parse(text), {}, ())
    assert [item.line for item in found] == [1, 2, 3]
    assert all(item.hint for item in found)


def test_a_base_is_found_through_stages_and_targets() -> None:
    """What the target stands on is the base at the end of its chain of stages."""
    dockerfile = parse(b"FROM debian-base AS a\nFROM a AS b\nFROM scratch AS c\n")
    uses = image_uses(dockerfile, {}, ("debian-base",))
    assert base_of(uses, dockerfile, target_stage(dockerfile, "B")).reference == "debian-base"
    assert base_of(uses, dockerfile, target_stage(dockerfile, None)).kind is Kind.SCRATCH
    with pytest.raises(ConfigError, match="no stage") as caught:
        target_stage(dockerfile, "d")
    assert caught.value.hint == "stages: a, b, c"


def test_the_builder_reads_names_that_were_resolved_here() -> None:
    """FROM, COPY --from and mounts are rewritten without moving a line."""
    text = (
        "# syntax=docker/dockerfile:1\n# escape=`\nARG B=debian-base\n"
        "FROM --platform=linux/amd64 `\n  $B AS x\nCOPY --from=debian-base /a /b\n"
        "RUN --mount=type=bind,from=debian-base,target=/m `\n  true\nFROM x\n"
    )
    dockerfile = parse(text.encode())
    uses = image_uses(dockerfile, {}, ("debian-base",))
    written = rewrite(dockerfile, uses, {"debian-base": "localhost/b:1"}).decode()
    assert written == (
        "# escape=`\n#\nARG B=debian-base\n"
        "FROM --platform=linux/amd64 localhost/b:1 AS x\n\nCOPY --from=localhost/b:1 /a /b\n"
        "RUN --mount=type=bind,from=localhost/b:1,target=/m `\n  true\nFROM x\n"
    )
    assert parse(written.encode()).escape == "`"


def test_a_name_that_cannot_be_replaced_safely_is_refused() -> None:
    """A quoted flag is not guessed at."""
    dockerfile = parse(b'FROM debian-base\nCOPY --from="debian-base" /a /b\n')
    uses = image_uses(dockerfile, {}, ("debian-base",))
    with pytest.raises(ConfigError, match="plainly"):
        rewrite(dockerfile, uses, {"debian-base": "localhost/b:1"})


def test_short_names_are_qualified_as_docker_does() -> None:
    """No builder may search registries for a short name."""
    assert qualified("debian@x") == "docker.io/library/debian@x"
    assert qualified("team/app@x") == "docker.io/team/app@x"
    assert qualified("localhost/app@x") == "localhost/app@x"
    assert qualified("r.example:5000/app@x") == "r.example:5000/app@x"


def test_shapes_of_secrets_are_recognised() -> None:
    """Token formats and credentials in URLs are found; ordinary text is not."""
    assert secret_shape("AKIA" + "A" * 16) == "an AWS access key id"
    assert secret_shape("https://u:p@h/") == "a URL with a password"
    assert secret_shape("https://example.com/a:b@c") is None
    assert secret_name("X_KEY")
    assert not secret_name("KEY_FILE")
