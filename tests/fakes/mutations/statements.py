"""Changes of a statement, which is signed afterwards."""

from __future__ import annotations

from typing import Any

from fakes.jsontext import Members, Raw, read
from fakes.mutations.draft import Draft, Mutation, Origin, Random
from fakes.mutations.trees import ODD_VALUES, TREE, edit_bytes
from secure_pipeline.attestations.statement import STATEMENT_V01


def _statement_tree(name: str) -> Mutation:
    def mutate(random_: Random, draft: Draft, origin: Origin) -> None:
        TREE[name](random_, draft.statement)

    return mutate


def _statement_header(name: str) -> Mutation:
    """As above, but of the statement itself and its subjects, not of the predicate."""

    def mutate(random_: Random, draft: Draft, origin: Origin) -> None:
        predicate = draft.statement.get("predicate")
        draft.statement.put("predicate", Raw('"held back"'))
        TREE[name](random_, draft.statement)
        for position, (key, value) in enumerate(draft.statement):
            if value == Raw('"held back"'):
                draft.statement[position] = (key, predicate)

    return mutate


def _statement_bytes(random_: Random, draft: Draft, origin: Origin) -> None:
    draft.text = edit_bytes(random_, draft.payload)


def _statement_spaces(random_: Random, draft: Draft, origin: Origin) -> None:
    draft.separators = random_.choice(
        ((", ", ": "), (" ,\n", "\t:\r"), (",\x0b", ":"), (",,", ":"))
    )


def _statement_type(random_: Random, draft: Draft, origin: Origin) -> None:
    types = ("", "https://in-toto.io/Statement/v2", "https://in-toto.io/Statement/V1", "x", None)
    draft.statement.put("_type", random_.choice((STATEMENT_V01, STATEMENT_V01, *types)))


def _predicate_type(random_: Random, draft: Draft, origin: Origin) -> None:
    kind = draft.kind
    near = (f"{kind}/", kind.upper(), f"{kind} ", f" {kind}", kind[:-1], f"{kind}#x", "", "custom")
    draft.statement.put("predicateType", random_.choice(near))


def _subjects(random_: Random, draft: Draft, origin: Origin) -> None:
    ours = draft.statement.get("subject")
    if not isinstance(ours, list) or not 0 < len(ours) < 4:
        return
    other = read('{"name":"other","digest":{"sha256":"' + "a" * 64 + '"}}')
    bare = read('{"name":"other"}')
    draft.statement.put(
        "subject",
        random_.choice(
            (
                *([*ours, other], [other, *ours], [other], [], [*ours, *ours], [bare, *ours]),
                *([*ours, bare], [*ours, None], ours * 1001, [other] * 1100 + ours),
            )
        ),
    )


def _first_subject(draft: Draft) -> Members | None:
    subjects = draft.statement.get("subject")
    first = subjects[0] if isinstance(subjects, list) and subjects else None
    return first if isinstance(first, Members) else None


def _digest(random_: Random, draft: Draft, origin: Origin) -> None:
    digest = draft.image.hex
    values: tuple[Any, ...] = (
        *(digest.upper(), f"sha256:{digest}", f" {digest}", digest[:-1], f"{digest}00", "", None),
        *("a" * 64, digest[:10].upper() + digest[10:], 7, [digest], "é" * 64),
    )
    algorithms: tuple[Members, ...] = (
        *(Members([("sha256", value)]) for value in values),
        *(Members([("SHA256", digest)]), Members([("sha-256", digest)]), Members()),
        *(Members([("sha256", digest), (name, value)]) for name, value in _MORE_DIGESTS),
        Members([("sha256", digest), *((f"a{n}", "00") for n in range(40))]),
        Members([("sha512", "b" * 128)]),
        Members([("sha256", "a" * 64), ("sha256", digest)]),
    )
    if subject := _first_subject(draft):
        subject.put("digest", random_.choice(algorithms))


_MORE_DIGESTS = (
    *(("sha512", "b" * 128), ("sha512", "not hex"), ("gitCommit", "c" * 40), ("sha1", "")),
    *(("", "00"), ("sha512", "B" * 128), ("dirHash", "h1:x")),
)


def _subject_members(random_: Random, draft: Draft, origin: Origin) -> None:
    members: tuple[tuple[str, Any], ...] = (
        *(("uri", "pkg:oci/x"), ("uri", 5), ("content", "AAEC"), ("content", "?"), ("name", None)),
        *(("annotations", Members([("a", 1)])), ("annotations", "x"), ("mediaType", "a/b")),
        *(("downloadLocation", None), ("download_location", "x"), ("name", 3), ("name", "")),
    )
    if subject := _first_subject(draft):
        subject.put(*random_.choice(members))


def _predicate(random_: Random, draft: Draft, origin: Origin) -> None:
    draft.statement.put("predicate", random_.choice((*ODD_VALUES, Raw('{"a":1,"a":2}'))))


STATEMENTS: dict[str, Mutation] = {
    **{f"statement: {name}": _statement_tree(name) for name in TREE},
    **{f"header: {name}": _statement_header(name) for name in TREE},
    "statement: bytes": _statement_bytes,
    "statement: spaces": _statement_spaces,
    "statement: type": _statement_type,
    "statement: predicate type": _predicate_type,
    "statement: subjects": _subjects,
    "statement: digest": _digest,
    "statement: subject's members": _subject_members,
    "statement: predicate": _predicate,
}
