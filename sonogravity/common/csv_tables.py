"""Read small tables that users write by hand or with a spreadsheet: one row per file."""

import csv
from typing import NamedTuple

from sonogravity.common.messages import InputError, some


class Table(NamedTuple):
    """rows: (place for messages, {column: text}) of each line. columns: those of the choices that the table has."""

    rows: list
    columns: tuple
    delimiter: str


def tables_beside_images(paths, name):
    """Return the tables called ``name`` that lie beside images/ or masks/, of folders and files that a user gave."""
    found = []
    for path in paths:
        path = path.parent if path.is_file() else path
        folder = path.parent if path.name in ("images", "masks") else path
        if any((folder / part).is_dir() for part in ("images", "masks")) and (folder / name).is_file():
            found.append(folder / name)
    return list(dict.fromkeys(found))


def read_table(path, option, choices):
    """Return the Table of a CSV file with the column file and one of several ``choices`` of further columns.

    option: by which the user gave the file. Columns may be separated by commas, semicolons or tabs, and a line
    ``sep=;``, which some spreadsheets write, may come first. Raise InputError if the file is no such table, or if a
    line has no file name or more fields than the head.
    """
    expected = " or ".join(", ".join(("file", *names)) for names in choices)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {option} needs a CSV with the columns {expected}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; save the table as CSV (UTF-8)") from error
    lines = text.splitlines()
    for_excel = bool(lines) and lines[0].strip().lower().startswith("sep=")
    lines = lines[for_excel:]
    delimiter = next((each for each in (";", "\t") if lines and each in lines[0]), ",")
    reader = csv.DictReader(lines, delimiter=delimiter)
    header = [name.strip() for name in reader.fieldnames or ()]
    columns = next((names for names in choices if {"file", *names} <= set(header)), None)
    if columns is None:
        raise InputError(f"{path}: the columns are {some(header, 6) or 'missing'}; name them {expected}")
    reader.fieldnames = header
    rows = []
    for fields in reader:
        where = f"{path}, line {reader.line_num + for_excel}"
        if any((field or "").strip() for field in fields.get(None) or ()):
            raise InputError(
                f"{where}: has more fields than the head; if a field holds a comma, separate the columns by semicolons"
            )
        row = {name: (fields[name] or "").strip() for name in ("file", *columns)}
        if not row["file"]:
            raise InputError(f"{where}: has no file name; name the image or remove the line")
        rows.append((where, row))
    return Table(rows, columns, delimiter)
