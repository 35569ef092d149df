"""Changes of any JSON document, and of any bytes: what parsers disagree about."""

from __future__ import annotations

from typing import Any

from fakes.jsontext import Members, Raw, objects, places
from fakes.mutations.draft import Random

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, "", " ", "x", [], Members(), [None], 2**53 + 1, 2**70),
    *(Raw(text) for text in ("1e400", "-0", "1E5", "1.0", "01", "NaN", "Infinity", ".5", "1e-400")),
    *(Raw(text) for text in ('"\\ud800"', '"\\u0000"', '"\\/"', '"\\x41"', "'x'", '"\\u00e9"')),
    *(
        Raw(text)
        for text in ('"a\tb"', '"a\nb"', "nul", "True", "undefined", '"\u202e"', '"e\u0301"')
    ),
    Raw("[" * 60 + "]" * 60),
    Raw("[" * 99 + "]" * 99),
    Raw("[" * 300 + "]" * 300),
)
TAILS = (
    b" ",
    b"\n",
    b"\t",
    b"\0",
    b"{}",
    b"x",
    b"\xef\xbb\xbf",
    b"//",
    b",",
    b"]",
    b"\x0b",
    b"\xc2\xa0",
)
HEADS = (b" ", b"\n", b"\xef\xbb\xbf", b"\0", b"// c\n", b"\xff\xfe")


def _some_object(random_: Random, tree: Members) -> Members:
    """An object with a member; the tree itself, empty, if there is none."""
    return random_.choice([item for item in objects(tree) if item] or [tree])


def _odd_value(random_: Random, tree: Members) -> None:
    found = list(places(tree))
    if found:
        random_.choice(found).put(random_.choice(ODD_VALUES))


def _unknown(random_: Random, tree: Members) -> None:
    target = random_.choice(list(objects(tree)))
    value = random_.choice((*ODD_VALUES[:14], "text"))
    target.insert(random_.randint(0, len(target)), (random_.choice(("extra", "x", "")), value))


def _duplicate(random_: Random, tree: Members) -> None:
    target = _some_object(random_, tree)
    if not target:
        return
    name, value = random_.choice(target)
    other = random_.choice((value, None, "x", *ODD_VALUES[:6]))
    target.insert(random_.randint(0, len(target)), (name, other))


def _drop(random_: Random, tree: Members) -> None:
    target = _some_object(random_, tree)
    if not target:
        return
    del target[random_.randrange(len(target))]


def _rename(random_: Random, tree: Members) -> None:
    target = _some_object(random_, tree)
    if not target:
        return
    position = random_.randrange(len(target))
    name, value = target[position]
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    escaped = Raw('"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"')
    target[position] = (
        random_.choice((snake, name.upper(), name.capitalize(), f"{name} ", escaped)),
        value,
    )


def _shuffle(random_: Random, tree: Members) -> None:
    target = random_.choice(list(objects(tree)))
    random_.shuffle(target)


TREE = {
    "odd value": _odd_value,
    "unknown member": _unknown,
    "duplicate member": _duplicate,
    "member dropped": _drop,
    "member renamed": _rename,
    "members reordered": _shuffle,
}


def edit_bytes(random_: Random, data: bytes) -> bytes:
    position = random_.randrange(len(data))
    action = random_.choice(("flip", "insert", "delete", "cut", "head", "tail", "repeat"))
    if action == "flip":
        changed = bytes([data[position] ^ (1 << random_.randrange(8))])
        return data[:position] + changed + data[position + 1 :]
    if action == "insert":
        return data[:position] + random_.choice(TAILS) + data[position:]
    if action == "delete":
        return data[:position] + data[position + 1 :]
    if action == "cut":
        return data[:position] or data[:1]
    if action == "repeat":
        return data + data
    return random_.choice(HEADS) + data if action == "head" else data + random_.choice(TAILS)
