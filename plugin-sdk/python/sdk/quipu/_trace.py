"""Places in the author's files. Written by hand: `traceback` opens the files to show a line, and there are no files when
the plugin runs. The lines are kept from the time it was built."""

import os
import sys

_FRAMES_MAX = 32
_SOURCE_CHARS_MAX = 160
_SOURCES_CHARS_MAX = 4 << 20

_root = ""
_sources = {}


def keep_sources(root):
    """Keeps the lines of every module below this folder."""
    global _root
    _root = root
    left = _SOURCES_CHARS_MAX
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if not path.startswith(root + os.sep) or not path.endswith(".py"):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(left)
        left -= len(text)
        _sources[path] = text.split("\n")


def at_build(error, root):
    """As Python shows an exception, without the frames of its own and of this SDK. The files are still there."""
    import traceback

    shown = ["the plugin fails as its module loads, which happens when it is built:"]
    for frame in traceback.extract_tb(error.__traceback__):
        if root and frame.filename.startswith(root + os.sep):
            shown.append(f'  File "{frame.filename[len(root) + 1 :]}", line {frame.lineno}, in {frame.name}')
            shown.append(f"    {frame.line}")
    said = "".join(traceback.format_exception_only(error)).rstrip()
    shown += said.replace(f'"{root}{os.sep}', '"').split("\n") if root else said.split("\n")
    if isinstance(error, ModuleNotFoundError):
        shown.append("  A plugin has Python's own modules, quipu, and what is in the project's folder; nothing else is installed.")
    return shown


def said(error, function):
    """Text and trace of a fault. The text has the place too: it is often all that is shown. Where the author's code was left
    already, as by a wrong result, the place is that of the function."""
    if frames := _frames(error):
        path, line, name = frames[-1]
        return f"{text(error)} ({_short(path)}:{line} in {name})", "\n".join(lines(error))
    code = getattr(function, "__code__", None)
    if code is None:
        return text(error), ""
    place = _short(code.co_filename), code.co_firstlineno, code.co_name
    return "{} ({}:{} in {})".format(text(error), *place), 'File "{}", line {}, in {}'.format(*place)


def text(error):
    name = type(error).__name__
    said = str(error)
    return f"{name}: {said}" if said else name


def lines(error):
    """The author's frames as Python shows them, the innermost last."""
    shown = []
    for path, line, function in _frames(error)[-_FRAMES_MAX:]:
        shown.append(f'File "{_short(path)}", line {line}, in {function}')
        source = _source(path, line)
        if source:
            shown.append(f"    {source}")
    cause = error.__cause__
    if cause is not None and cause is not error:
        shown = [*lines(cause), f"{text(cause)}; because of it:", *shown]
    return shown


def with_place(error):
    """The text, with the place behind it."""
    frames = _frames(error)
    if not frames:
        return text(error)
    path, line, _ = frames[-1]
    return f"{error} ({_short(path)}:{line})"


def _frames(error):
    frames, at = [], error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if code.co_filename.startswith(_root + os.sep):
            frames.append((code.co_filename, at.tb_lineno, code.co_name))
        at = at.tb_next
    return frames


def _short(path):
    return path[len(_root) + 1 :]


def _source(path, line):
    of = _sources.get(path, [])
    return of[line - 1].strip()[:_SOURCE_CHARS_MAX] if 0 < line <= len(of) else ""
