"""inspection.xlsx of train.py --check: every file, and the labels to look at, with pictures."""

from openpyxl import Workbook
from PIL import Image, ImageDraw

from sonogravity.common import file_names, files
from sonogravity.common.claims import claim_folder
from sonogravity.common.messages import say
from sonogravity.common.processes import is_first_process
from sonogravity.datasets.frames import read_pair
from sonogravity.datasets.mask_components import KINDS
from sonogravity.reporting import pictures, workbook

MOST_PICTURES = 100
FRAME = 12  # pixels between a suspect label and the rectangle around it


def write_inspection(folder, findings, channels):
    """Write folder/inspection.xlsx, and pictures of the labels to look at to folder/inspection."""
    if is_first_process():
        with claim_folder(folder, ", or give another --name"):
            _write_inspection(folder, findings, channels)


def _write_inspection(folder, findings, channels):
    labels, facts, suspects = findings.labels, findings.facts, findings.review.suspects
    drawn = {}
    for suspect in suspects:
        if suspect.index not in drawn and len(drawn) < MOST_PICTURES:
            fact = facts[suspect.index]
            path = folder / file_names.INSPECTION_PICTURES / f"{suspect.index:05d}_{files.short(fact.pair.stem)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            boxes = [each.box for each in suspects if each.index == suspect.index]
            files.write_whole(path, _draw, fact.pair, channels, labels, boxes)
            drawn[suspect.index] = path.relative_to(folder).as_posix()
    path = folder / file_names.INSPECTION
    files.write_whole(path, _write, findings, drawn)
    say(f"written: {path}")


def _draw(path, pair, channels, labels, boxes):
    """Draw the frame and its mask, a rectangle around each of the boxes."""
    image, mask = read_pair(pair, channels)
    frame = pictures.grey_to_rgb(image)
    laid = pictures.overlay(frame, labels.shown(mask), labels)
    sheet = Image.new("RGB", (2 * frame.shape[1] + pictures.GAP, frame.shape[0]), "white")
    for left, picture in ((0, frame), (frame.shape[1] + pictures.GAP, laid)):
        sheet.paste(Image.fromarray(picture), (left, 0))
        draw = ImageDraw.Draw(sheet)
        for rows, columns in boxes:
            corners = columns.start - FRAME, rows.start - FRAME, columns.stop + FRAME, rows.stop + FRAME
            corners = [max(0, each) for each in corners]
            corners[2] = min(corners[2], frame.shape[1] - 1)
            draw.rectangle((left + corners[0], corners[1], left + corners[2], corners[3]), outline="red", width=2)
    sheet.save(path, format="PNG")


def _write(path, findings, drawn):
    labels, facts = findings.labels, findings.facts
    book = Workbook()
    book.active.title = "Labels to look at"
    rows = [
        {
            "kind": suspect.kind,
            "file": facts[suspect.index].pair.mask.name,
            "class": labels.names[suspect.c],
            "pixels": suspect.area,
            "left": suspect.box[1].start,
            "top": suspect.box[0].start,
            "width": suspect.box[1].stop - suspect.box[1].start,
            "height": suspect.box[0].stop - suspect.box[0].start,
            "note": suspect.note,
            "picture": drawn.get(suspect.index, ""),
        }
        for suspect in findings.review.suspects
    ]
    if rows:
        workbook.add_table(book.active, rows)
        for number, row in enumerate(rows, 2):
            if row["picture"]:
                cell = book.active.cell(number, len(row))
                cell.hyperlink, cell.style = row["picture"], "Hyperlink"
        book.active.column_dimensions["B"].width, book.active.column_dimensions["I"].width = 24, 60
    else:
        workbook.write_cell(book.active, 1, 1, "No label stands out.")
    if findings.review.copies:
        copies = [
            {"mask": number, "file": facts[index].pair.mask.name}
            for number, group in enumerate(findings.review.copies, 1)
            for index in group
        ]
        workbook.add_table(book.create_sheet("Equal masks"), copies)
        book["Equal masks"].column_dimensions["B"].width = 30
    workbook.add_table(book.create_sheet("Files"), list(_file_rows(findings)))
    book["Files"].column_dimensions["B"].width = 24
    definitions = [{"kind": kind, "text": text, "definition": how} for kind, (text, how) in KINDS.items()]
    workbook.add_table(book.create_sheet("Definitions"), definitions)
    for letter, width in (("A", 12), ("B", 60), ("C", 120)):
        book["Definitions"].column_dimensions[letter].width = width
    book.save(path)


def _file_rows(findings):
    """One row per file: its size, type and brightest pixel, and the pixels of each class."""
    labels = findings.labels
    for number, fact in enumerate(findings.facts):
        row = {
            "set": "training" if number < findings.counts["training"] else "validation",
            "file": fact.pair.image.name,
            "width": fact.size[1],
            "height": fact.size[0],
            "type": fact.kind,
            "maximum": fact.maximum,
        }
        counted = zip(labels.column_names, labels.count_classes(fact.counts).tolist(), strict=True)
        yield row | {f"pixels_{name}": pixels for name, pixels in counted}
