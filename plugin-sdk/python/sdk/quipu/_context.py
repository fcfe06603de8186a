"""Where and when a plugin runs, and its log."""

from wit_world.imports import context as _host
from wit_world.imports import log as _log

_loading = True


def loaded():
    """From here on there is a router to call."""
    global _loading
    _loading = False


def is_loading():
    return _loading


def called(name):
    """Modules are run once while a plugin is built, with no router there to call."""
    if _loading:
        raise RuntimeError(
            f"{name} was used while the module loads, and that happens when the plugin is built: "
            "there is no router yet. Use it in configure or process"
        )


class _Context:
    __slots__ = ()

    @property
    def plugin(self):
        """The plugin's name."""
        called("context.plugin")
        return _host.plugin()

    @property
    def route(self):
        """The route's name."""
        called("context.route")
        return _host.route()

    @property
    def now_ms(self):
        """Unix time in milliseconds; stands still while one message is processed."""
        called("context.now_ms")
        return _host.now_ms()

    @property
    def seed(self):
        """A random number below 2**53; the same for each look at one message."""
        called("context.seed")
        return _host.seed()


class _Log:
    __slots__ = ()

    def trace(self, *parts):
        _say("trace", _log.Level.TRACE, parts)

    def debug(self, *parts):
        _say("debug", _log.Level.DEBUG, parts)

    def info(self, *parts):
        _say("info", _log.Level.INFO, parts)

    def warn(self, *parts):
        _say("warn", _log.Level.WARN, parts)

    def error(self, *parts):
        _say("error", _log.Level.ERROR, parts)


def _say(name, level, parts):
    called(f"log.{name}")
    _log.log(level, " ".join(map(str, parts)))


context = _Context()
log = _Log()
