"""Run the service until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import signal
import sys
import threading

from inference_service.conversations import ConversationStore, MemoryStore
from inference_service.metrics import Metrics
from inference_service.model import BigramModel
from inference_service.redis_store import RedisStore
from inference_service.server import InferenceServer
from inference_service.service import Service
from inference_service.settings import Settings


def build(settings: Settings) -> InferenceServer:
    """Put the parts together. Raises: ValueError for a wrong URL, OSError for the address."""
    store: ConversationStore = MemoryStore(settings.max_contexts)
    if settings.redis_url is not None:
        store = RedisStore(settings.redis_url)
    service = Service(settings, BigramModel.bundled(), store, Metrics(settings.version))
    return InferenceServer(service)


def main() -> int:
    """Serve. 0: ended in order, 1: requests were cut off, 2: wrong settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.from_environment(os.environ)
        server = build(settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    print(f"version {settings.version} listens on port {server.port}", flush=True)
    stop.wait()
    return 0 if server.drain() else 1


if __name__ == "__main__":
    sys.exit(main())
