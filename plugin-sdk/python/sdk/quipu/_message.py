"""The message in hand: read, change, emit."""

import json as _jsons

from componentize_py_types import Err
from wit_world.imports import edit as _edit
from wit_world.imports import emit as _emit
from wit_world.imports import message as _host
from wit_world.imports.types import Outgoing

from . import _json
from ._errors import Refused, Reject

_UNREAD = object()


class Message:
    """The message in hand, as the plugins before this one left it. Each read asks the router; payload, text and JSON are
    read on first use and then kept."""

    __slots__ = ("_payload", "_text", "_json")

    def __init__(self):
        self._begin()

    def _begin(self):
        """Forgets what was read of the message before."""
        self._payload = None
        self._text = self._json = _UNREAD

    @property
    def id(self):
        return _host.id()

    @property
    def subject(self):
        return _host.subject()

    @property
    def origin_subject(self):
        """The subject it was first published to."""
        return _host.origin_subject()

    @property
    def key(self):
        """Bytes, or None."""
        return _host.key()

    @property
    def headers(self):
        """All (name, value) pairs, in order."""
        return _host.headers()

    def header(self, name):
        """The first value of this header, or None; names compare without case."""
        return _host.header(name)

    def header_values(self, name):
        return _host.header_values(name)

    @property
    def published_ms(self):
        return _host.published_ms()

    @property
    def expires_ms(self):
        return _host.expires_ms()

    @property
    def attempt(self):
        """1 on the first try."""
        return _host.attempt()

    @property
    def priority(self):
        return _host.priority()

    @property
    def reply_to(self):
        """The subject that waits for a reply, or None."""
        return _host.reply_to()

    @property
    def payload(self):
        if self._payload is None:
            self._payload = _host.payload()
        return self._payload

    @property
    def payload_len(self):
        """Without fetching it."""
        return _host.payload_len()

    def payload_range(self, offset, length):
        """Part of the payload, clamped to it; fetches that part alone."""
        return _host.payload_range(offset, length)

    @property
    def text(self):
        """The payload as text, or None where it is not UTF-8."""
        if self._text is _UNREAD:
            try:
                self._text = self.payload.decode()
            except UnicodeDecodeError:
                self._text = None
        return self._text

    @property
    def json(self):
        """The payload as JSON. Rejects the message where it is none. Changing the value does not change the message:
        that is `set_json`."""
        if self._json is _UNREAD:
            self._json = _json.read(self.payload)
        return self._json

    def json_at(self, path, type=None):
        """One field by its dotted path, of this type (float, int, str, bool, list, dict) if one is given. Rejects the
        message where it is absent or of another type."""
        value = _json.at(self.json, path)
        problem = None if type is None else _json.differs(value, type)
        if problem is not None:
            raise Reject(f"{path}: {problem}")
        return value

    def set_header(self, name, value):
        """Takes the place of all values of this header."""
        _edit.set_header(name, _text("set_header", value))

    def add_header(self, name, value):
        _edit.add_header(name, _text("add_header", value))

    def remove_header(self, name):
        _edit.remove_header(name)

    def set_key(self, key):
        """Text or bytes."""
        _edit.set_key(_bytes("set_key", key))

    def remove_key(self):
        _edit.remove_key()

    def set_payload(self, payload):
        """Text or bytes."""
        _edit.set_payload(_bytes("set_payload", payload))
        self._begin()

    def set_json(self, value):
        self.set_payload(_jsons.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))

    def emit(
        self,
        subject,
        payload=None,
        *,
        json=None,
        key=None,
        headers=(),
        id=None,
        expires_ms=None,
        deliver_at_ms=None,
        priority=None,
    ):
        """Publishes a new message: a payload of text or bytes, or `json`; `headers` a dict or pairs. Raises `Refused`."""
        if payload is not None and json is not None:
            raise TypeError("emit: either payload or json")
        if json is not None:
            payload = _jsons.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        pairs = headers.items() if isinstance(headers, dict) else headers
        whole = [(name, _text("emit", value)) for name, value in pairs]
        properties = (
            ("quipu-id", id),
            ("quipu-expires-ms", expires_ms),
            ("quipu-deliver-at-ms", deliver_at_ms),
            ("quipu-priority", priority),
        )
        whole += [(name, str(value)) for name, value in properties if value is not None]
        key = None if key is None else _bytes("emit", key)
        message = Outgoing(_text("emit", subject), key, whole, _bytes("emit", b"" if payload is None else payload))
        _sent(subject, lambda: _emit.publish(message))

    def emit_copy(self, subject):
        """Publishes a copy of the message in hand, as changed so far; the payload stays with the router. Raises
        `Refused`."""
        _sent(subject, lambda: _emit.copy(_text("emit_copy", subject)))


def _sent(subject, send):
    try:
        send()
    except Err as e:
        raise Refused(subject, e.value.name.lower().replace("_", "-")) from None


def _text(taker, value):
    if not isinstance(value, str):
        raise TypeError(f"{taker} takes text, not {value!r}")
    return value


def _bytes(taker, value):
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{taker} takes text or bytes, not {value!r}")
