"""The workbooks epochs.xlsx and files.xlsx, and the same tables as CSV in full precision.

Numbers are rounded by the cell format only. NaN and infinity are blank cells. Text is written as text,
whatever its first character is.
"""

import json
import math
import re

from openpyxl import Workbook
from openpyxl.chart import LineChart, Reference
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter

from sonogravity.datasets.labels import Labels
from sonogravity.metrics.columns import COLUMNS, NOTES, WHOLE, find, form_of, notes_of_files
from sonogravity.metrics.file_scores import SWEPT
from sonogravity.metrics.margin import VARIANTS
from sonogravity.metrics.summary import best_epoch

HEADER_FILL = PatternFill("solid", fgColor="1F4E78")
HEADER_FONT = Font(bold=True, color="FFFFFF")
BEST_FILL = PatternFill("solid", fgColor="C6E0B4")
NOTE_FONT = Font(italic=True, color="7F7F7F")
NOT_IN_XML = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")  # in XML 1.0 or in openpyxl


def column_names(rows):
    """Return the columns of a table: those of its longest row (a file without a mask has fewer)."""
    return list(max(rows, key=len))


def write_csv(path, rows):
    """Write rows as CSV in full precision. NaN and infinity are empty cells."""
    import pandas as pd  # the import takes 0.2 s, for which the first frame would wait

    frame = pd.DataFrame(rows, columns=column_names(rows)).replace([math.inf, -math.inf], math.nan)
    frame.to_csv(path, index=False)


def write_json(path, content):
    """Write a dictionary as JSON. NaN and infinity are null, and lone surrogates are written as escapes."""

    def plain(value):
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    text = json.dumps(plain(content), indent=2, ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    path.write_text(text + "\n", encoding="utf-8")


def write_epochs(path, history, settings):
    """Write the workbook of a run: Epochs (best marked), Curves, Settings, Definitions."""
    book = Workbook()
    sheet = book.active
    sheet.title = "Epochs"
    best = best_epoch(history)
    has_dice = not math.isnan(history[best - 1]["dice"])
    add_table(sheet, history, marked=(best - 1,) if has_dice else ())
    if has_dice:
        note = f"green: the best epoch by validation Dice ({best})"
        write_cell(sheet, len(history) + 3, 1, note).font = NOTE_FONT
    _curves(book.create_sheet("Curves"), sheet, history)
    _settings(book.create_sheet("Settings"), settings)
    _definitions(book.create_sheet("Definitions"), list(history[0]), settings, NOTES)
    book.save(path)


def write_files(path, rows, summary, settings, few_subjects):
    """Write the workbook of scored files: Files, Summary, Settings, Definitions.

    Further sheets appear if they apply: Least certain first, Worst first, one per group, Calibration, Sweep.
    summary: the content of summary.json.
    few_subjects: the number of subjects if it is too small for a reliable interval, else None.
    """
    book = Workbook()
    add_table(book.active, rows)
    _colour_variants(book.active, rows)
    book.active.title = "Files"
    if unseen := least_certain_first(rows):
        add_table(book.create_sheet("Least certain first", 0), unseen)
    if scored := [row for row in rows if "dice" in row]:
        worst = sorted(scored, key=lambda row: math.inf if math.isnan(row["dice"]) else row["dice"])
        sheet = book.create_sheet("Worst first")
        add_table(sheet, worst)
        _colour_variants(sheet, worst)
    _summary(book.create_sheet("Summary"), summary, few_subjects)
    groups = summary.get("groups", {})
    for by, table in groups.items():
        add_table(book.create_sheet(f"By {by}"), table, marked=(len(table) - 2, len(table) - 1))
    if clips := summary.get("clips"):
        add_table(book.create_sheet("Clips"), [{"clip": clip, **entry} for clip, entry in clips.items()])
    if "calibration" in summary:
        _calibration(book.create_sheet("Calibration"), summary["calibration"])
    if "margin" in summary:
        _sweep(book.create_sheet("Sweep"), summary["margin"])
    _settings(book.create_sheet("Settings"), settings)
    notes = notes_of_files("margin" in summary, bool(groups), "smooth_seconds" in summary)
    names = [*column_names(rows), *(column_names([{"clip": 0} | entry for entry in clips.values()]) if clips else ())]
    _definitions(book.create_sheet("Definitions"), names, settings, notes)
    book.save(path)


def least_certain_first(rows):
    """Return the rows without a mask, sorted by expected_dice. Rows without any predicted structure come first."""
    unseen = [row for row in rows if "dice" not in row and "expected_dice" in row]
    return sorted(unseen, key=lambda row: -1 if math.isnan(row["expected_dice"]) else row["expected_dice"])


def write_cell(sheet, row, column, value, number_format=None):
    """Write and return one cell. Text stays text if it begins with =, +, - or @, even when a user edits the cell."""
    cell = sheet.cell(row, column)
    if isinstance(value, float) and not math.isfinite(value):
        return cell
    if isinstance(value, str):
        cell.value = NOT_IN_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
        cell.data_type = "s"  # openpyxl would take "=..." for a formula
        cell.quotePrefix = value.startswith(("=", "+", "-", "@"))
        return cell
    cell.value = value
    if number_format:
        cell.number_format = WHOLE if isinstance(value, int) else number_format
    return cell


def _variant_fill(name):
    """Return the fill of a variant of the truth, half as strong as in figures, so that numbers stay legible."""
    red, green, blue = bytes.fromhex(VARIANTS[name].colour[1:])
    return PatternFill("solid", fgColor="".join(f"{(part + 255) // 2:02X}" for part in (red, green, blue)))


def _header(sheet, names, row=1):
    for column, name in enumerate(names, 1):
        cell = write_cell(sheet, row, column, name)
        cell.font, cell.fill, cell.alignment = HEADER_FONT, HEADER_FILL, Alignment(vertical="center")
        given = sheet.column_dimensions[get_column_letter(column)]
        given.width = max(9 if row == 1 else given.width, len(name) + 4)
    sheet.freeze_panes = "B2"


def add_table(sheet, rows, marked=()):
    """Write dictionaries as a table with a frozen header and a filter. Marked rows are green."""
    names = column_names(rows)
    _header(sheet, names)
    for i, row in enumerate(rows):
        for column, name in enumerate(names, 1):
            cell = write_cell(sheet, i + 2, column, row.get(name), form_of(name))
            if i in marked:
                cell.fill = BEST_FILL
    for column, name in enumerate(names, 1):
        longest = max((len(text) for row in rows if isinstance(text := row.get(name), str)), default=0)
        given = sheet.column_dimensions[get_column_letter(column)]
        given.width = max(given.width, min(60, longest + 2))
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(names))}{len(rows) + 1}"


def _colour_variants(sheet, rows):
    """Colour the name and the Dice of the variant used, with one colour per variant."""
    names = column_names(rows)
    for i, row in enumerate(rows):
        if used := row.get("mask_used"):
            for name in ("mask_used", f"dice_{used}"):
                sheet.cell(i + 2, names.index(name) + 1).fill = _variant_fill(used)


def line_chart(data, title, names, columns, last, from_zero_to_one):
    """Return a chart of columns of a table. It refers to the cells, so it changes when a user edits them."""
    chart = LineChart()
    chart.title, chart.height, chart.width = title, 8, 18
    chart.x_axis.title = names[0]
    chart.x_axis.delete = chart.y_axis.delete = False  # without this some viewers hide the axes
    for name in columns:
        column = names.index(name) + 1
        chart.add_data(Reference(data, min_col=column, min_row=1, max_row=last), titles_from_data=True)
    chart.set_categories(Reference(data, min_col=1, min_row=2, max_row=last))
    for series in chart.series:
        series.smooth = False
        series.marker.symbol = "circle"
    if from_zero_to_one:
        chart.y_axis.scaling.min, chart.y_axis.scaling.max = 0, 1
    return chart


def _curves(sheet, data, history):
    names = list(history[0])
    last = len(history) + 1
    dice = [name for name in names if name == "dice" or name.startswith("dice_")]
    charts = (("Loss", ["train_loss", "val_loss"]), ("Validation Dice", dice), ("Learning rate", ["learning_rate"]))
    for position, (title, columns) in enumerate(charts):
        chart = line_chart(data, title, names, columns, last, title == "Validation Dice")
        sheet.add_chart(chart, f"A{1 + 17 * position}")


def _sweep(sheet, margin):
    """Write the scores against the margin, because the choice of one margin is arbitrary."""
    rows = margin["sweep"]
    add_table(sheet, rows)
    names = list(rows[0])
    sheet.add_chart(line_chart(sheet, "Mean over files", names, list(SWEPT), len(rows) + 1, True), "J2")


def _calibration(sheet, classes):
    """Write the points of the reliability diagram, one row per class and bin."""
    add_table(sheet, [{"class": name, **row} for name, entry in classes.items() for row in entry["bins"]])
    lines = [f"{name}: expected calibration error {entry['ece']:.5f}" for name, entry in classes.items()]
    lines.append("The background dominates this error; the curve's distance from the diagonal is more informative.")
    for offset, line in enumerate(lines, sheet.max_row + 2):
        write_cell(sheet, offset, 1, line).font = NOTE_FONT


def _summary(sheet, summary, few_subjects):
    names = ("metric", "mean", "ci95_low", "ci95_high", "mean_of_classes", "sd", "median", "q1", "q3", "n")
    stored = dict(summary.get("metrics", {}))
    for name, entries in summary.get("classes", {}).items():
        stored |= {f"{metric}_{name}": entry for metric, entry in entries.items()}
    rows = {}
    for key, entry in (stored | summary["measurements"]).items():
        low, high = entry.get("ci95", (None, None))  # measurements have no interval
        rows[key] = {**entry, "ci95_low": low, "ci95_high": high, "pooled": summary.get("pooled", {}).get(key)}
    _entries(sheet, 1, (*names, "missed", "spurious", "pooled"), rows)
    below = len(rows) + 3
    if agreement := summary.get("agreement"):
        _entries(sheet, below, ("agreement", *next(iter(agreement.values()))), agreement)
        below += len(agreement) + 2
    sheet.column_dimensions["A"].width = max(map(len, rows)) + 2
    lines = [f"files with a mask: {summary['files']}"]
    lines += [f"{what}: {summary[what]} classes over all files" for what in ("missed", "spurious") if what in summary]
    if summary["files_independent"]:
        lines.append("No file has a subject: files are taken as independent by intervals and limits.")
    elif few_subjects is not None:
        lines.append(f"Only {few_subjects} subjects: the ci95 interval and the limits of subjects are unreliable.")
    if "smooth_seconds" in summary:
        lines.append(f"Frames of clips: logits smoothed over {summary['smooth_seconds']:g} s (--smooth).")
    for offset, line in enumerate(lines, below):
        write_cell(sheet, offset, 1, line).font = NOTE_FONT
    if "margin" in summary:
        _chosen(sheet, summary["margin"], below + len(lines) + 1)


def _entries(sheet, top, names, entries):
    """Write a header in the row ``top``, and below it one row per column of the sheet Files. names: of the cells."""
    _header(sheet, names, top)
    for row, (key, entry) in enumerate(entries.items(), top + 1):
        write_cell(sheet, row, 1, key)
        for column, name in enumerate(names[1:], 2):
            write_cell(sheet, row, column, entry.get(name), form_of(name if name in COLUMNS else key))


def _chosen(sheet, margin, row):
    """Write the number of files per chosen variant, each in its colour."""
    given = margin["pixels_per_mm"]
    source = "of each file" if given is None else f"{given}" + (" (ASSUMED)" if margin["assumed"] else "")
    text = f"number of files per chosen variant, at a margin of {margin['mm']:g} mm; pixels per mm: {source}"
    write_cell(sheet, row, 1, text).font = NOTE_FONT
    for offset, (name, count) in enumerate(margin["chosen"].items(), 1):
        write_cell(sheet, row + offset, 1, name).fill = _variant_fill(name)
        write_cell(sheet, row + offset, 2, count, "0")


def _settings(sheet, settings):
    _header(sheet, ("setting", "value"))
    row = 2
    for group, entries in settings.items():
        entries = entries if isinstance(entries, dict) else {"": entries}
        for name, value in entries.items():
            write_cell(sheet, row, 1, f"{group} {name}".strip())
            simple = value is None or isinstance(value, (int, float, str))
            cell = write_cell(sheet, row, 2, value if simple else json.dumps(value, ensure_ascii=False))
            cell.alignment = Alignment(horizontal="left")  # the column holds numbers and text
            row += 1
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = 34, 80


def _definitions(sheet, names, settings, notes):
    """Write the definition of each column. settings: those of the run, with its labels."""
    classes = Labels.from_dict(settings["labels"]).column_names
    _header(sheet, ("column", "definition", "unit"))
    row = 2
    for name in names:
        found = find(name, classes)
        for column, value in enumerate((name, found.text, found.unit), 1):
            write_cell(sheet, row, column, value).alignment = Alignment(wrap_text=column == 2, vertical="top")
        sheet.row_dimensions[row].height = 15 * math.ceil(len(found.text) / 100)  # viewers do not adjust it
        row += 1
    for note in notes:
        row += 1
        cell = write_cell(sheet, row, 2, note)
        cell.alignment = Alignment(wrap_text=True, vertical="top")
        sheet.row_dimensions[row].height = 15 * math.ceil(len(note) / 100)
    for letter, width in (("A", 26), ("B", 110), ("C", 14)):
        sheet.column_dimensions[letter].width = width
