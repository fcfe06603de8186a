"""A configuration against what the plugin declares: a type is required, any other value is the default."""

from ._errors import ConfigError, MissingKey
from ._json import differs


class Config(dict):
    """The configuration; a key that is not there is named."""

    def __missing__(self, key):
        there = ", ".join(self) or "none"
        raise MissingKey(f"the configuration has no key {key!r}; it has {there}")


def checked(given, schema):
    """With defaults filled in."""
    if schema is None:
        return Config(given)
    unknown = [key for key in given if key not in schema]
    whole = Config()
    for key, wanted in schema.items():
        required = isinstance(wanted, type)
        if key not in given:
            if required:
                hint = f" (unknown {_keys(unknown)})" if unknown else ""
                raise ConfigError(f"missing key `{key}`{hint}")
            whole[key] = wanted
            continue
        problem = differs(given[key], wanted if required else type(wanted))
        if problem is not None:
            shown = f": {given[key]!r}" if isinstance(given[key], (str, int, float)) else ""
            raise ConfigError(f"{key}: {problem}{shown}")
        whole[key] = given[key]
    if unknown:
        raise ConfigError(f"unknown {_keys(unknown)}; known: {', '.join(schema) or 'none'}")
    return whole


def _keys(names):
    return f"key{'' if len(names) == 1 else 's'} " + ", ".join(f"`{name}`" for name in names)
