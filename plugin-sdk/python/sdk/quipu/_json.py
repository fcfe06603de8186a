"""JSON as RFC 8259 has it, and fields of it by a dotted path."""

import json

from ._errors import Reject


def read(payload):
    """The value; rejects the message where there is none."""
    try:
        return json.loads(payload.decode(), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise Reject("the payload is no JSON: it is not UTF-8") from None
    except ValueError as e:
        raise Reject(f"the payload is no JSON: {e}") from None
    except RecursionError:
        raise Reject("the payload is no JSON: it is nested too deeply") from None


def _no_number(name):
    raise ValueError(f"{name} is no number of JSON")


def parse_path(path):
    r"""The names on the way: `a.b\.c` is `a`, then `b.c`."""
    names, escaped = [""], False
    for c in path:
        if escaped or c not in ".\\":
            names[-1] += c
            escaped = False
        elif c == ".":
            names.append("")
        else:
            escaped = True
    if "" in names:
        raise ValueError(f"invalid path {path!r}: an empty name")
    return names


def at(value, path):
    """The field; rejects the message where it is absent, and says where it ended."""
    names = parse_path(path)
    for depth, name in enumerate(names):
        place = json.dumps(".".join(names[:depth]), ensure_ascii=False) if depth > 0 else "the payload"
        if isinstance(value, dict):
            if name not in value:
                raise Reject(f"{path}: absent: {place} has no {json.dumps(name, ensure_ascii=False)}")
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdecimal():
            if int(name) >= len(value):
                raise Reject(f'{path}: absent: {place} has no "{name}"')
            value = value[int(name)]
        else:
            raise Reject(f"{path}: absent: {place} is {kind(value)}, not an object")
    return value


_EXPECTED = {float: "a number", int: "a whole number", str: "text", bool: "a boolean", list: "an array", dict: "an object"}


def differs(value, wanted):
    """In what a value of JSON is not of this type, or None."""
    if wanted not in _EXPECTED:
        raise TypeError(f"a type is one of float, int, str, bool, list, dict, not {wanted!r}")
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if fits and (wanted is bool or not isinstance(value, bool)):
        return None
    return f"found {kind(value)}, expected {_EXPECTED[wanted]}"


def kind(value):
    """As people call it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"
