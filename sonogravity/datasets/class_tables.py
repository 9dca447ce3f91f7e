"""classes.csv beside images/: the name of each mask value, as the annotation tool gave it."""

import csv

from sonogravity.common.csv_tables import tables_beside_images
from sonogravity.common.messages import InputError
from sonogravity.datasets.labels import value_text

TABLE = "classes.csv"
COLUMNS = ("value", "name")


def read_classes(path):
    """Return {label: mask value} of a table of classes, {} if there is none. Raise InputError if it is damaged."""
    if not path.exists():
        return {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [(row["name"].strip(), int(row["value"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: is no table of the columns {', '.join(COLUMNS)}; repair or remove it") from error
    if len(dict(rows)) < len(rows) or len({value for _, value in rows}) < len(rows):
        raise InputError(f"{path}: holds a name or a value twice; repair or remove it")
    return dict(rows)


def refuse_other_classes(labels, folders):
    """Raise InputError if tables in data folders give a value another name than each other, or than the Labels."""
    named = {}
    for table in tables_beside_images(folders, TABLE):
        for name, value in read_classes(table).items():
            first, where = named.setdefault(value, (name, table))
            if first != name:
                remedy = "convert both again with the same --class-names"
                raise InputError(f"{table}: {value} is {name}, but {first} in {where}; {remedy}")
    for value, name in zip(labels.values, labels.names, strict=True):
        first, where = named.get(value, (name, None))
        if name not in (first, value_text(value)):
            raise InputError(
                f"{where}: {value} is {first}, but the model or --class-names calls it {name}; give the names in the "
                "order of the values"
            )
