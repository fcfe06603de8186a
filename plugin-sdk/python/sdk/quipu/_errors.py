"""The exceptions that mean something to the router."""


class Reject(Exception):
    """Raised out of `process`, it rejects the message with its text."""


class ConfigError(Exception):
    """Raised out of `configure`, it refuses the configuration with its text."""


class Refused(Exception):
    """The router did not take a new message. `refusal` is `limit`, `invalid`, `not-granted` or `loop`."""

    def __init__(self, subject, refusal):
        super().__init__(f"the router refused the message to {subject!r}: {refusal}")
        self.refusal = refusal


class MissingKey(KeyError):
    """A key that the configuration does not have. Unlike `KeyError` it says so."""

    def __str__(self):
        return self.args[0]
