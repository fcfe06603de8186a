"""What becomes of the message in hand."""

from wit_world.imports.types import (
    RetryAfter,
    Verdict_Drop,
    Verdict_Forward,
    Verdict_Reject,
    Verdict_Retry,
    Verdict_Route,
)

_FORWARD = Verdict_Forward()
VERDICTS = (Verdict_Forward, Verdict_Drop, Verdict_Route, Verdict_Reject, Verdict_Retry)
_DELAY_MS_MAX = 2**53


def forward():
    """To the next plugin of the chain; after the last one, to the route's `to`."""
    return _FORWARD


def route(*subjects):
    """As forward, but these 1 to 64 subjects take the place of `to`."""
    if len(subjects) == 1 and isinstance(subjects[0], (list, tuple)):
        subjects = subjects[0]
    return Verdict_Route([_text("route", "subjects", subject) for subject in subjects])


def drop(reason):
    """Settled and gone. Reasons are counted: leave out what differs from message to message."""
    return Verdict_Drop(_text("drop", "a reason", reason))


def retry(reason, ms=0):
    """Try again after so many milliseconds; 0 means the route's own backoff."""
    if not isinstance(ms, int) or isinstance(ms, bool) or not 0 <= ms < _DELAY_MS_MAX:
        raise TypeError(f"retry takes whole milliseconds from 0 on, not {ms!r}")
    return Verdict_Retry(RetryAfter(ms, _text("retry", "a reason", reason)))


def reject(reason):
    """To the dead-letter queue now."""
    return Verdict_Reject(_text("reject", "a reason", reason))


def _text(taker, what, value):
    if not isinstance(value, str):
        raise TypeError(f"{taker} takes {what} as text, not {value!r}")
    return value


def checked(value):
    """The verdict that `process` gave."""
    if isinstance(value, VERDICTS):
        return value
    if hasattr(value, "__await__"):
        value.close()
        raise TypeError("process is `async def`: it cannot be, since there is nothing to wait for")
    what = "nothing" if value is None else repr(value)
    raise TypeError(
        f"process gave {what}: it has to return forward(), route(...), drop(...), retry(...) or reject(...)"
    )
