"""The one exception that means: the user can mend this."""


class InputError(Exception):
    """Bad input or a wrong option: one line that says what was given, and what to do.

    Scripts print it as ``error: ...`` and end with exit code 2 (see ``cli.script``).
    """


def some(items, limit=3):
    """``a, b, c and 4 more``: the first few of a long list, for messages."""
    items = [str(item) for item in items]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
