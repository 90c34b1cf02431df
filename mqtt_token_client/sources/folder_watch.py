"""watch_folder: notices changes in a folder, with the library ``watchdog`` if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Thread

from ..logs import get_logger

_log = get_logger("mqtt_token_client.sources")

_SETTLE_TIME = 0.1  # seconds from a change to the call: an agent that writes makes several changes at once
_CHANGES = ("created", "modified", "closed", "moved", "deleted")  # not: opened for reading


def load() -> None:
    """Load ``watchdog`` now, if it is installed: what is loaded in connect() delays whoever else needs the client."""
    with suppress(ImportError):
        import_module("watchdog.observers")


def watch_folder(folder: Path, look: Callable[[], None]) -> Callable[[], None]:
    """Call ``look`` on a thread of its own after each change in a folder, and once at the start, for changes before
    that. If the folder cannot be watched, this is logged and ``look`` is never called.

    Returns:
        The function that ends it, without waiting for ``look``, which may call it too.
    """
    try:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer
    except ImportError:
        _log.info("%s is not watched, as watchdog is not installed (mqtt-token-client[watch])", folder)
        return lambda: None

    changed, ended = Event(), Event()

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in _CHANGES:
                changed.set()

    observer = None
    try:
        observer = Observer()
        observer.schedule(Handler(), str(folder.resolve()))
        observer.start()
    except OSError as error:  # no such folder, or no more inotify watches
        _log.warning("%s is not watched: %s", folder, error.strerror)
        if observer is not None:
            observer.stop()  # its threads are running already
        return lambda: None

    def run() -> None:
        while True:
            changed.clear()
            if ended.is_set():  # checked after clear(), which would undo the set() of end()
                observer.stop()
                return
            try:
                look()
            except Exception:  # noqa: BLE001 - the caller's function
                _log.exception("a callback for changes in %s raised an exception; it is ignored", folder)
            changed.wait()
            ended.wait(_SETTLE_TIME)

    def end() -> None:
        ended.set()
        changed.set()

    Thread(target=run, name="folder-watch", daemon=True).start()
    return end
