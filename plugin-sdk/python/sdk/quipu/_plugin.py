"""The two functions of a plugin, and what the router calls."""

import json
import sys

from componentize_py_types import Err
from wit_world.imports import context as _context
from wit_world.imports import log as _log

from . import _config, _system, _trace, _verdict
from ._context import loaded
from ._errors import ConfigError, Reject
from ._message import Message

_functions = {}
_schema = None
_configuration = None
_message = Message()


def plugin(function=None, /, **schema):
    """Marks the function that says what becomes of a message: `@plugin`, or with the keys of the configuration,
    `@plugin(at_least=float, label="big")`. A type is required, any other value is the default."""
    if function is None:
        return lambda function: _mark("plugin", function, schema)
    return _mark("plugin", function, None)


def configure(function):
    """Marks the function that is called once with the configuration, before the first message. What it raises refuses
    the plugin."""
    return _mark("configure", function, None)


def _mark(what, function, schema):
    global _schema
    if not callable(function):
        raise TypeError(f"@{what} stands before a function")
    if what in _functions:
        raise TypeError(f"two functions have @{what}: {_functions[what].__name__} and {function.__name__}")
    _functions[what] = function
    if what == "plugin":
        _schema = schema
    return function


def check_loaded():
    """Once the author's module is there."""
    if "plugin" not in _functions:
        raise TypeError("no function has @plugin: from quipu import plugin, and put @plugin before `def process`")


def call_configure():
    global _configuration
    loaded()
    _system.begin()
    try:
        _configuration = _config.checked(json.loads(_context.config() or "{}"), _schema)
        if "configure" in _functions:
            _functions["configure"](_configuration)
    except ConfigError as e:
        raise Err(str(e)) from None
    except ValueError as e:
        raise Err(_trace.with_place(e)) from None
    except BaseException as e:
        _fault(e, _functions.get("configure"))


def call_process():
    _message._begin()
    _system.next_message(_context.seed)
    try:
        verdict = _verdict.checked(_functions["plugin"](_message, _configuration))
        sys.stdout.flush()
        return verdict
    except Reject as e:
        return _verdict.reject(str(e))
    except BaseException as e:
        _fault(e, _functions["plugin"])


def _fault(error, function):
    """An exception is said before it traps."""
    sys.stdout.flush()
    sys.stderr.flush()
    # What called this prints the exception too before it traps, with the frames of this SDK: once is enough.
    sys.stderr = None
    _log.fault(*_trace.said(error, function))
    raise error
