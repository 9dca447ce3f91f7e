"""Types of options. Each function parses the text of an option, or raises ArgumentTypeError."""

import argparse
import math
import re

MOST_WORKERS = 256


def number_type(kind, low, high, open_low, what):
    """Return a parser of numbers (or texts) from low to high. open_low: low is excluded. what: names the range."""

    def parse(text):
        try:
            value = kind(text)
            wrong = not math.isfinite(value) or value > high or value < low or (open_low and value == low)
        except (ValueError, TypeError, OverflowError):
            raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from None
        if wrong:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    return parse


def _even(text):
    value = int(text)
    if value % 2:
        raise ValueError
    return value


positive_int = number_type(int, 1, math.inf, False, "a whole number of at least 1")
region_number = number_type(int, 1, 2**31, False, "the number of a region, from 1")
natural = number_type(int, 0, 2**31, False, "a whole number of at least 0")
worker_number = number_type(int, 0, MOST_WORKERS, False, f"a number of workers from 0 to {MOST_WORKERS}")
even_int = number_type(_even, 2, math.inf, False, "an even whole number of at least 2")
fold_count = number_type(int, 2, math.inf, False, "a number of folds of at least 2")
class_count = number_type(int, 2, 255, False, "a number of classes from 2 to 255, background included")
positive_float = number_type(float, 0, math.inf, True, "a number above 0")
non_negative_float = number_type(float, 0, math.inf, False, "a number of at least 0")
smoothing_time = number_type(float, 0, 60, True, "a number of seconds above 0 and up to 60")
margin_width = number_type(float, 0, 100, True, "a margin above 0 and up to 100 mm")
play_speed = number_type(float, 0, 100, True, "a speed above 0 and up to 100")
port_number = number_type(int, 0, 65535, False, "a port from 0 to 65535")
scale_factor = number_type(float, 0, 4, True, "a scale above 0 and up to 4")


def frame_limit(text):
    """Return (number, whether it is seconds) of a limit of frames: ``90``, or ``3s``."""
    try:
        in_seconds = text.endswith("s")
        value = float(text[:-1]) if in_seconds else int(text)
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of a frame (90) nor seconds (3s)") from None
    return value, in_seconds


def rectangle(text):
    """Return (left, top, width, height) in pixels of ``X,Y,W,H``."""
    try:
        left, top, width, height = map(int, text.split(","))
        if left < 0 or top < 0 or width < 1 or height < 1:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a rectangle X,Y,W,H in whole pixels: column and row of its top left corner, from 0, then "
            "width and height"
        ) from None
    return left, top, width, height


def device_name(text):
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def run_name(text):
    if not re.fullmatch(r"[\w][\w.+-]*", text):
        raise argparse.ArgumentTypeError(
            f"'{text}': a run name has only letters, digits and . _ + -, and does not start with . + -"
        )
    return text


def subject_regex(text):
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a regular expression ({error})") from None
    return text
