"""From layers to lines of the Dockerfile."""

from __future__ import annotations

import pytest

from secure_pipeline.dockerfile.parser import parse
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.history import ImageLayer
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.stages.layerlines import layer_lines

DOCKERFILE = b"""\
FROM debian@sha256:0000000000000000000000000000000000000000000000000000000000000000 AS base
RUN apt-get update && \\
    apt-get install -y openssl
FROM base AS builder
RUN make
FROM base AS runtime
WORKDIR /app
COPY --from=builder /src/out ./bin/
ENV MODE=prod
RUN ["useradd", "app"]
COPY main.py /app/main.py
"""


def lines(*words: str | None, target: str | None = "runtime") -> list[int | None]:
    """The line of each layer that was made so."""
    layers = []
    for number, text in enumerate(words):
        digest = Digest.of(str(number).encode())
        layers.append(ImageLayer(Descriptor("layer", digest, 1), digest, text))
    found = layer_lines(layers, parse(DOCKERFILE), target)
    return [found.get(str(layer.descriptor.digest)) for layer in layers]


@pytest.mark.parametrize(
    "words",
    [
        (
            "/bin/sh -c #(nop) ADD file:123 in / ",
            "RUN /bin/sh -c apt-get update &&     apt-get install -y openssl # buildkit",
            "WORKDIR /app",
            "COPY /src/out ./bin/ # buildkit",
            "RUN useradd app # buildkit",
            "COPY main.py /app/main.py # buildkit",
        ),
        (
            "mmdebstrap",
            "/bin/sh -c apt-get update && apt-get install -y openssl",
            "/bin/sh -c #(nop) WORKDIR /app",
            "/bin/sh -c #(nop) COPY dir:5f2b in /app/bin ",
            "useradd app",
            "/bin/sh -c #(nop) COPY file:77aa in /app/main.py ",
        ),
    ],
)
def test_layers_of_buildkit_and_of_others_are_found(words: tuple[str, ...]) -> None:
    """Each layer gets the line of its instruction; the base image's gets that of FROM."""
    found = lines(*words)
    assert found[:4] == [1, 2, 7, 8]
    assert found[5] == 11
    assert found[4] in (10, None)


def test_build_arguments_before_the_command_do_not_hide_it() -> None:
    """Docker's |N NAME=value prefix is no part of the command."""
    words = "RUN |1 VERSION=1.2 /bin/sh -c apt-get update && apt-get install -y openssl # buildkit"
    assert lines(None, words) == [1, 2]


def test_only_the_chain_of_the_target_counts() -> None:
    """An instruction of another stage is never named."""
    assert lines(None, "RUN /bin/sh -c make # buildkit") == [None, None]
    assert lines(None, "RUN /bin/sh -c make # buildkit", target="builder") == [1, 5]


def test_an_image_in_one_layer_has_no_line() -> None:
    """Where no layer can be told, no line is named instead of a wrong one."""
    assert lines("squashed") == [None]
    assert lines(None) == [None]


def test_layers_out_of_order_are_not_matched_upwards() -> None:
    """A layer is only matched with an instruction above the next layer's."""
    words = ("COPY main.py /app/main.py # buildkit", "WORKDIR /app")
    assert lines(*words) == [1, 7]
