"""A CSV in long form: a header, then one row for each timestamp of each series.

The id column says to which series a row belongs. Rows are ordered by the time column (numbers or
ISO dates), else as they stand. The class column holds one label a series. Every other column that
has a name and a number in it is a variate.
"""

import csv
import io
import re
from datetime import UTC, datetime

import numpy as np

USUAL = ("id", "time", "class")
MISSING = ("", "?", "nan", "na", "null", "none")  # in any case
LARGEST = float(np.finfo(np.float32).max)


def read_long(text, path, columns=USUAL):
    """-> ids, labels or None, and a float32 array (T_i, D) a series; NaN where a cell is missing.

    Raises ValueError; `path` is only what its message begins with.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    ids, labels, rows = {}, {}, []  # id -> its number, id -> label, (number, time, line, cells)
    try:
        header = [title.strip() for title in next(table, [])]
        at_id, at_time, at_class = (_place(header, *pair) for pair in zip(columns, USUAL))
        for row in table:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if delimiter != "," and any(re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in cells):
                raise ValueError("a number with a decimal comma; write a point")
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} fields, but {len(header)} in the header")
            name, label = cells[at_id], "" if at_class is None else cells[at_class]
            if not name:
                raise ValueError("the id is missing")
            if label and labels.setdefault(name, label) != label:
                raise ValueError(f"{name[:40]!r} has the class {labels[name][:40]!r} above")
            time = 0.0 if at_time is None else _time(cells[at_time])
            rows.append((ids.setdefault(name, len(ids)), time, table.line_num, cells))
    except (csv.Error, ValueError) as e:
        raise ValueError(f"{path}:{table.line_num}: {e}") from None
    if labels and (bare := [name for name in ids if name not in labels]):
        raise ValueError(f"{path}: {bare[0][:40]!r} has no class, and other series have one")
    roles = {at_id, at_time, at_class}
    variates = [i for i, title in enumerate(header) if title and i not in roles]
    variates = [i for i in variates if any(_is_number(cells[i]) for *_, cells in rows)]
    if not variates:
        raise ValueError(f"{path}: holds no numbers beside the columns {', '.join(columns)}")
    X = np.empty((len(rows), len(variates)), np.float32)  # one series after the other
    for x, (_, _, line, cells) in zip(X, sorted(rows)):
        try:
            x[:] = [number(cells[i]) for i in variates]
        except ValueError as e:
            raise ValueError(f"{path}:{line}: {e}") from None
    ends = np.bincount([row[0] for row in rows]).cumsum()
    labels = [labels[name] for name in ids] if labels else None
    return list(ids), labels, np.split(X, ends[:-1])


def _place(header, title, usual):
    """The place of a column; None where an optional one has its usual name, in any case, and is not
    there."""
    if title == usual and title not in header:
        title = next((name for name in header if name.lower() == usual), title)
    if title not in header and title == usual != "id":
        return None
    if header.count(title) != 1:
        found = ", ".join(header)[:200]
        raise ValueError(f"{usual}_column {title!r} must be one of the columns, which are {found}")
    return header.index(title)


def _time(cell):
    """A number, or an ISO date as seconds; a date without a time zone counts as UTC."""
    if _is_number(cell):
        return float(cell)
    try:
        date = datetime.fromisoformat(cell)
    except ValueError:
        raise ValueError(f"the time {cell[:40]!r} is no number and no ISO date") from None
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def _is_number(cell):
    try:
        return not np.isnan(number(cell))
    except ValueError:
        return False


def number(cell):
    """One entry of a text file: NaN where it is missing, ValueError where it is no number."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return np.nan
    try:
        if cell.isascii() and "_" not in cell and abs(float(cell)) <= LARGEST:
            return float(cell)
    except ValueError:
        pass
    raise ValueError(f"{cell[:40]!r} is no finite number, ? or NaN")
