"""What every conversation store promises, shown for memory and for a real Redis."""

import threading
import uuid
from collections.abc import Iterator

import pytest

from inference_service.conversations import (
    MAX_TURNS,
    ConversationStore,
    MemoryStore,
    StoreUnavailable,
    Turn,
)
from inference_service.redis_store import RedisStore
from inference_service.resp import Connection


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[ConversationStore]:
    if request.param == "memory":
        yield MemoryStore(max_contexts=100)
        return
    redis = RedisStore(request.getfixturevalue("shared_redis").url)
    yield redis
    redis.close()


@pytest.fixture
def context() -> str:
    return uuid.uuid4().hex


def test_unknown_context_is_empty(store, context):
    """A context that nobody used has no turns."""
    assert store.turns(context) == []


def test_turns_come_back_in_order(store, context):
    """Turns come back oldest first, with every character as it was."""
    turns = [Turn("one\n\x00 \"'", "ответ"), Turn("two", "\U0001f6a2"), Turn("three", "")]
    counts = [store.append(context, turn) for turn in turns]
    assert counts == [1, 2, 3]
    assert store.turns(context) == turns


def test_only_the_last_twelve_turns_are_kept(store, context):
    """The thirteenth turn pushes the first one out."""
    counts = [store.append(context, Turn(str(n), "a")) for n in range(15)]
    assert counts[-4:] == [12, 12, 12, 12]
    assert [turn.prompt for turn in store.turns(context)] == [str(n) for n in range(3, 15)]


def test_contexts_are_separate(store, context):
    """A turn of one context is not seen in another."""
    store.append(context, Turn("p", "a"))
    assert store.turns(context + "x") == []


def test_returned_list_is_a_copy(store, context):
    """Changing what was returned does not change what is kept."""
    store.append(context, Turn("p", "a"))
    store.turns(context).clear()
    assert len(store.turns(context)) == 1


def test_simultaneous_turns_are_all_counted_and_never_more_than_twelve(store, context):
    """Eight writers at once never show a reader a thirteenth turn."""
    seen: list[int] = []

    def write(writer: int) -> None:
        for n in range(10):
            store.append(context, Turn(f"{writer}.{n}", "a"))
            seen.append(len(store.turns(context)))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert max(seen) == MAX_TURNS
    assert len(store.turns(context)) == MAX_TURNS


def test_a_working_store_passes_its_check(store):
    """A store that can be used does not complain."""
    store.check()


def test_memory_forgets_the_least_recently_used_context():
    """The number of contexts is bounded, and reading counts as use."""
    store = MemoryStore(max_contexts=2)
    store.append("a", Turn("p", "a"))
    store.append("b", Turn("p", "a"))
    store.turns("a")
    store.append("c", Turn("p", "a"))
    assert [len(store.turns(name)) for name in "abc"] == [1, 0, 1]


def test_redis_conversations_expire(shared_redis, context):
    """Every turn sets a time to live, so that Redis does not fill up."""
    RedisStore(shared_redis.url).append(context, Turn("p", "a"))
    connection = Connection(shared_redis.url, 2)
    (left,) = connection.call(("TTL", f"inference:context:{context}"))
    connection.close()
    assert 86_000 < left <= 86_400


def test_redis_keeps_a_bounded_number_of_idle_connections(shared_redis, context, monkeypatch):
    """Connections over the bound are closed after use."""
    monkeypatch.setattr("inference_service.redis_store._MAX_IDLE", 0)
    store = RedisStore(shared_redis.url)
    store.check()
    assert store._idle == []


@pytest.mark.parametrize("stored", [b"not json", b"[1, 2]", b'["one"]', b"7"])
def test_redis_content_of_another_shape_is_refused(shared_redis, context, stored):
    """What another program wrote under our key is not taken for a conversation."""
    connection = Connection(shared_redis.url, 2)
    connection.call(("LPUSH", f"inference:context:{context}", stored))
    connection.close()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        RedisStore(shared_redis.url).turns(context)


def test_redis_key_of_another_type_is_refused(shared_redis, context):
    """A transaction in which one command failed is not a kept turn."""
    connection = Connection(shared_redis.url, 2)
    connection.call(("SET", f"inference:context:{context}", "text"))
    connection.close()
    store = RedisStore(shared_redis.url)
    with pytest.raises(StoreUnavailable, match="did not take"):
        store.append(context, Turn("p", "a"))
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.turns(context)


def test_redis_with_a_wrong_password_is_unavailable(shared_redis):
    """A refused login is an outage that does not show the password."""
    store = RedisStore(f"redis://:wrong-word@127.0.0.1:{shared_redis.port}")
    with pytest.raises(StoreUnavailable) as caught:
        store.check()
    assert "wrong-word" not in str(caught.value)


def test_redis_is_used_again_after_a_restart(own_redis, context):
    """An outage is one error for each request in it, and none after it."""
    store = RedisStore(own_redis.url)
    store.append(context, Turn("p", "a"))
    own_redis.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.check()
    own_redis.start()
    assert store.append(context, Turn("p", "a")) == 1
