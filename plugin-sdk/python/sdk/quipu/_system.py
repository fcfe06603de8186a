"""What Python asks of a system, where a plugin has none: clock, files, standard output, chance. Without this, the call
would trap and say nothing."""

import builtins
import io
import sys
import time

from ._context import context, is_loading, log


def install():
    """Before the author's modules load, since they may take `time.time` by its name."""
    _clock("time", lambda: context.now_ms / 1000)
    _clock("time_ns", lambda: context.now_ms * 1_000_000)
    # These may not stand still for loops that wait by them: better an error than a loop without end.
    for name in ("sleep", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"):
        _without(time, name, "a plugin cannot wait or measure; the time is context.now_ms")
    for module in (builtins, io):
        _without(module, "open", "a plugin has no files when it runs; read them while the module loads, at build time")


def begin():
    """Once there is a router."""
    sys.stdout = _Lines(log.info)
    sys.stderr = _Lines(log.warn)


def seed(number):
    """The state of `random` was frozen when the plugin was built. Seeded with each message, it is as random as the router's
    own seed, and a replay sees the same. Costs some microseconds, so only where something imported it."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed(number())


def _clock(name, now):
    real = getattr(time, name)
    setattr(time, name, lambda: real() if is_loading() else now())


def _without(module, name, why):
    real = getattr(module, name)

    def call(*args, **kwargs):
        if not is_loading():
            raise OSError(f"{name}: {why}")
        return real(*args, **kwargs)

    setattr(module, name, call)


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
