"""What Python asks of a system, where a plugin has none: clock, chance, files, standard output. Without this, the call
would trap and say nothing."""

import _random
import _strptime  # noqa: F401  `datetime.strptime` imports it when it is first called
import builtins
import datetime
import encodings.ascii  # noqa: F401  and so does `encode`, with these
import encodings.cp1252  # noqa: F401
import encodings.idna  # noqa: F401
import encodings.latin_1  # noqa: F401
import encodings.utf_16  # noqa: F401
import importlib.machinery
import io
import os
import sys
import time

from ._context import context, is_loading, log

_NO_FILES = "a plugin has no files when it runs; read them while the module loads, at build time"
_NO_NETWORK = "a plugin has no network; emit a message to whoever has one"
_NO_WAITING = "a plugin cannot wait or measure; the time is context.now_ms"

# The bytes of os.urandom for the message in hand, made when first asked for.
_chance = None


def install():
    """Before the author's modules load, since they may take `time.time` by its name."""
    _instead(time, "time", lambda: context.now_ms / 1000)
    _instead(time, "time_ns", lambda: context.now_ms * 1_000_000)
    _instead(os, "urandom", _urandom)
    # A clock that stands still would make loops of those that wait by it: better an error.
    for name in ("sleep", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"):
        _without(time, name, _NO_WAITING)
    for module in (builtins, io):
        _without(module, "open", _NO_FILES)
    for name in ("listdir", "scandir", "stat"):
        _without(os, name, _NO_FILES)
    _clock()


def begin():
    """Once there is a router, and the author's modules are there."""
    if socket := sys.modules.get("socket"):
        for name in ("socket", "create_connection", "getaddrinfo"):
            _without(socket, name, _NO_NETWORK)
    sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, _Late]
    sys.stdout = _Lines(log.info)
    sys.stderr = _Lines(log.warn)


def next_message(seed):
    """The state of `random` was frozen when the plugin was built. Seeded with each message, it is as random as the router's
    own seed, and a replay sees the same. Costs some microseconds, so only where something imported it."""
    global _chance
    _chance = None
    if random := sys.modules.get("random"):
        random.seed(seed())


def _urandom(count):
    global _chance
    if _chance is None:
        _chance = _random.Random(context.seed)
    return _chance.getrandbits(8 * count).to_bytes(count) if count else b""


def _instead(module, name, own):
    real = getattr(module, name)
    setattr(module, name, lambda *args: real(*args) if is_loading() else own(*args))


def _without(module, name, why):
    real = getattr(module, name, None)
    if real is None:
        return

    def call(*args, **kwargs):
        if not is_loading():
            raise OSError(f"{name}: {why}")
        return real(*args, **kwargs)

    setattr(module, name, call)


def _clock():
    """`datetime.now()` and its kin read the clock below Python, so that the types themselves are replaced."""

    class Date(datetime.date):
        @classmethod
        def today(cls):
            return super().today() if is_loading() else cls.fromtimestamp(context.now_ms / 1000)

    class DateTime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) if is_loading() else cls.fromtimestamp(context.now_ms / 1000, tz)

        @classmethod
        def today(cls):
            return cls.now()

        @classmethod
        def utcnow(cls):
            return cls.now(datetime.UTC).replace(tzinfo=None)

    for name, own in (("date", Date), ("datetime", DateTime)):
        own.__name__ = own.__qualname__ = name
        own.__module__ = "datetime"
        setattr(datetime, name, own)


class _Late:
    """Finds no module, and says why."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        why = "it is imported for the first time while the plugin runs, and there are no files then; import it at the top"
        raise ModuleNotFoundError(f"no module {name!r}: {why}", name=name)


class _Lines(io.TextIOBase):
    """Lines of the log out of what is printed."""

    def __init__(self, say):
        self._say, self._rest = say, ""

    def write(self, text):
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._say(line)
        return len(text)

    def flush(self):
        if self._rest:
            self._say(self._rest)
            self._rest = ""
