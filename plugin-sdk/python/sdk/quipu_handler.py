"""The contract's side of a plugin. The build names this module to componentize-py; it loads the author's own, which
`quipu_source.py`, written by the build, names."""

import importlib
import importlib.util
import os
import sys

from quipu import _plugin, _system, _trace
from quipu_source import MODULE
from wit_world import exports

def _load():
    """The author's module; what it raises is shown between two lines that build.py looks for."""
    root = ""
    try:
        found = importlib.util.find_spec(MODULE)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"no module named {MODULE!r}")
        root = found.origin.removesuffix(".py").removesuffix(MODULE.replace(".", os.sep)).rstrip(os.sep)
        importlib.import_module(MODULE)
        _trace.keep_sources(root)
        _plugin.check_loaded()
    except BaseException as e:
        shown = "\n".join(_trace.at_build(e, root))
        print(f"-- quipu: begin\n{shown}\n-- quipu: end", file=sys.stderr, flush=True)
        raise


_system.install()
_load()


class Handler(exports.Handler):
    def configure(self):
        _plugin.call_configure()

    def process(self):
        return _plugin.call_process()
