"""Files that are whole or absent, tables that no spreadsheet runs, one hash of a data set."""

import csv
import hashlib
import io
import json
import os
import re
import threading
import zipfile


def write(path, content, lasting=True):
    """`path` becomes `content`, str or bytes, as a whole; also after a power cut, if `lasting`."""
    part = path.with_name(f"{path.name}.{threading.get_native_id()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path, content):
    """`content` as a JSON file; a number that is not finite is a ValueError."""
    write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def csv_text(table):
    """{column: values} as CSV, made safe for spreadsheets."""

    def cell(value):  # a control character becomes its escape, what looks like a formula gets a '
        text = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: repr(m[0])[1:-1], str(value))
        number = re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text, re.IGNORECASE)
        return "'" + text if re.match(r"\s*[=+\-@]", text) and not number else text

    text = io.StringIO()
    rows = [table, *zip(*table.values(), strict=True)]
    csv.writer(text, lineterminator="\n").writerows([map(cell, row) for row in rows])
    return text.getvalue()


def intact(path):
    """Whether each member of the zip file `path` has its checksum."""
    try:
        return zipfile.ZipFile(path).testzip() is None
    except Exception:  # zipfile has many words for damaged bytes
        return False


def data_hash(X, y=None):
    """SHA-256 of the shape, the values and, where there are some, the labels of a data set."""
    labels = b"" if y is None else y.tobytes()
    return hashlib.sha256(str(X.shape).encode() + X.tobytes() + labels).hexdigest()
