"""Write routing plugins for Quipu in Python.

    from quipu import plugin, forward, drop

    @plugin(at_least=float)
    def process(message, config):
        magnitude = message.json_at("properties.mag", float)
        return forward() if magnitude >= config["at_least"] else drop("small")
"""

from ._context import context, log
from ._errors import ConfigError, Refused, Reject
from ._message import Message
from ._plugin import configure, plugin
from ._verdict import drop, forward, reject, retry, route

__all__ = [
    "ConfigError",
    "Message",
    "Refused",
    "Reject",
    "configure",
    "context",
    "drop",
    "forward",
    "log",
    "plugin",
    "reject",
    "retry",
    "route",
]
