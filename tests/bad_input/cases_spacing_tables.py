"""Cases of bad input: spacing tables."""

from scene import add

TABLES = {
    "without its columns": ("name,ppm\nC_000.png,3\n", "columns"),
    "with a negative number": ("file,pixels_per_mm\nC_000.png,-3\n", "line 2"),
    "with text for a number": ("file,pixels_per_mm\nC_000.png,many\n", "many"),
    "that lacks files": ("file,pixels_per_mm\nC_000.png,3\n", "C_001.png"),
    "with a file twice": ("file,pixels_per_mm\nC_000.png,3\nC_000.png,4\n", "twice"),
    "that is empty": ("", "columns"),
    "with a line without a name": ("file,pixels_per_mm\n,3\n", "no file name"),
    "with a density of a million": ("file,pixels_per_mm\n" + "".join(f"C_00{n}.png,1e6\n" for n in range(4)), "line 2"),
}
for _title, (_text, _says) in TABLES.items():
    add(
        f"a table {_title}",
        "unet/evaluate_w_margin",
        lambda s, text=_text: ["--spacing", _written(s.root / "spacing.csv", text)],
        "spacing.csv",
        _says,
    )
add(
    "a table in another encoding",
    "unet/evaluate",
    lambda s: ["--spacing", _written(s.root / "spacing.csv", "file,pixels_per_mm\nü.png,3\n", "latin-1")],
    "spacing.csv",
    "UTF-8",
)
add("a table that is a folder", "unet/evaluate", lambda s: ["--spacing", s.root], "no such file")
add(
    "a table of semicolons and decimal commas works",
    "unet/evaluate",
    lambda s: [
        "--spacing",
        _written(s.root / "t.csv", "file;pixels_per_mm\n" + "".join(f"C_00{n}.png;3,5\n" for n in range(4))),
    ],
    check=lambda s: "hd95_mm" in s.rows(),
)


def _written(path, content, encoding="utf-8"):
    path.write_text(content, encoding=encoding)
    return path
