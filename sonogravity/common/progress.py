"""Progress of a long loop: a bar on a terminal, a line every minute in a file."""

import sys

from tqdm import tqdm

from sonogravity.common.processes import is_first_process

LINE_EVERY_S = 60


class _Lines:
    """The standard error if it is no terminal: each state of a bar is one line, without carriage returns."""

    def write(self, text):
        if text := text.strip():
            sys.stderr.write(f"{text}\n")

    def flush(self):
        sys.stderr.flush()


def bar(steps, title, total, unit):
    """Return an iterable of the same steps that shows, in the first process, how far the loop is."""
    options = {"total": total, "unit": unit, "leave": False, "disable": not is_first_process()}
    if sys.stderr is not None and not sys.stderr.isatty():
        options |= {"file": _Lines(), "mininterval": LINE_EVERY_S, "delay": LINE_EVERY_S}
        options["bar_format"] = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} elapsed, {remaining} left{postfix}"
    return tqdm(steps, title, **options)
