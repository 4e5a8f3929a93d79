"""Time series as X (N, T, D) float32: the UEA archive by name, or files of one's own.

    from uea_loader import load
    X, y, classes, *_ = load("BasicMotions", split="test")

A name is looked up in `data_dir`, `./data`, the data folder beside this file and the cache folder
($EMTC_DATA, else the user's cache), then downloaded. Missing entries and the end of shorter series
are NaN. What a header says about sizes, lengths and missing values is ignored: the data decide.
aeon, sktime and tsai use (N, D, T): `X.transpose(0, 2, 1)` goes there and back; tslearn (N, T, D).
"""

import io
import os
import re
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from support import archive
from support.archive import DataError
from support.long_csv import number, read_long

FORMATS = (".ts", ".arff", ".npz", ".csv")
COPY_FROM = 1 << 20  # bytes of text from which a binary copy pays
MAX_PADDING = 100  # cells of the padded array per value in the file


class Dataset(NamedTuple):
    X: np.ndarray  # (N, T, D) float32, NaN = missing or padding, N, T, D >= 1
    y: np.ndarray | None  # (N,) int64 in [0, len(classes)), or None without labels
    classes: list[str]
    name: str
    ids: list[str] | None  # N names of series, where the file has them (.csv)


class Parsed(NamedTuple):
    """One file."""

    X: np.ndarray  # (N, T, D) float32, NaN = missing or padding
    labels: list[str] | None  # N class names
    classes: list[str]  # those that the header declares, in its order
    ids: list[str] | None = None


def load(
    name_or_path,
    split="test",
    data_dir=None,
    id_column="id",
    time_column="time",
    class_column="class",
    download=True,
):
    """Read one data set as a `Dataset`; raises `DataError`.

    name_or_path: a name ("BasicMotions"), a data set's folder (`Name_TRAIN.*`, `Name_TEST.*`), or a
    file, which is read as it is, whatever `split` says: `.ts`, `.arff`, `.npz` (`X` (N, T, D) or
    (N, T), perhaps `y` (N,)) or `.csv` (support/long_csv.py). split: "train", "test" or "all"
    (train, then test). Both splits share one label map: the classes in the order of the headers,
    train's first, or all sorted where a header names none.
    """
    if split not in ("train", "test", "all"):
        raise DataError(f"split is {split!r}; it must be 'train', 'test' or 'all'")
    columns = (id_column, time_column, class_column)
    need = ["train", "test"] if split == "all" else [split]
    try:
        path = Path(os.path.expanduser(name_or_path))
        if path.suffix.lower() in FORMATS:
            return _assemble({split: path}, [split], columns)
        files = archive.find(str(name_or_path), need, FORMATS, data_dir, download)
        return _assemble(files, need, columns)
    except MemoryError:
        raise DataError(f"{name_or_path}: does not fit into this machine's memory") from None
    except OSError as e:
        raise DataError(f"{str(e.filename or name_or_path)[-200:]}: {e.strerror or e}") from None


def _assemble(files, need, columns):
    """Read the splits in `need` and put them under the label map of all `files`."""
    parts = {s: _read(files[s], columns) for s in need}
    name = re.sub(r"_(TRAIN|TEST)$", "", files[need[0]].stem)
    X, labels, _, ids = zip(*parts.values())
    y, classes = None, []
    if None not in labels:
        order = sorted(files, reverse=True)  # train, test
        groups = [parts[s].classes if s in parts else _classes_of(files[s]) for s in order]
        if not all(groups):
            every = [parts[s] if s in parts else _read(files[s], columns) for s in order]
            groups = [sorted({c for part in every for c in part.labels or []}, key=_natural)]
        classes = list(dict.fromkeys(c for group in groups for c in group))
        code = {c: i for i, c in enumerate(classes)}
        y = np.array([code[c] for group in labels for c in group], np.int64)
    elif any(labels):
        raise DataError(f"{name}: one split has labels and the other has none")
    ids = None if None in ids else [i for group in ids for i in group]
    if X[0].shape[2] != X[-1].shape[2]:
        raise DataError(f"{name}: train has {X[0].shape[2]} variates and test {X[1].shape[2]}")
    if len(X) > 1:
        ends = [(0, max(X[0].shape[1], X[1].shape[1]) - x.shape[1]) for x in X]
        X = [np.pad(x, ((0, 0), end, (0, 0)), constant_values=np.nan) for x, end in zip(X, ends)]
        X = [np.concatenate(X)]
    return Dataset(X[0], y, classes, name, ids)  # (N, T, D)


def _natural(label):
    """Sort key: numbers by value, then words."""
    try:
        return (0, float(label), label) if float(label) == float(label) else (1, 0.0, label)
    except ValueError:
        return (1, 0.0, label)


# ---- one file


def _read(path, columns):
    """One file as `Parsed`; of a large text a copy is kept, and used while the text is the same."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind == ".npz":
        return _read_npz(path)
    data = path.read_bytes()
    key = repr(("emtc 2", len(data), zlib.crc32(data), columns if kind == ".csv" else None))
    large = len(data) >= COPY_FROM
    if large and (copy := archive.recall(path, key)):
        return Parsed(*copy)
    try:
        parsed = _read_csv(data, path, columns) if kind == ".csv" else _read_text(data, path)
    except DataError as e:
        if archive.cache_folder().resolve() not in path.resolve().parents:
            raise
        raise DataError(f"{e}; to download it again, delete {path.parent}") from None
    if large:
        archive.remember(path, key, parsed)
    return parsed


def _read_npz(path):
    try:
        found = archive.arrays_of(path, ("X", "y"))
    except ValueError as e:
        hint = "; save text labels as y.astype(str)" * ("Object arrays" in str(e))
        raise DataError(f"{path}: not a readable .npz file ({str(e)[:80]}){hint}") from None
    if "X" not in found:
        raise DataError(f"{path}: has no array X")
    X, y = found["X"], found.get("y")
    if X.dtype.kind not in "fiub" or X.ndim not in (2, 3) or 0 in X.shape:
        raise DataError(f"{path}: X is {X.dtype} {X.shape}; it must be numbers (N, T, D)")
    if y is not None and (y.shape != X.shape[:1] or y.dtype.kind not in "fiubU"):
        raise DataError(f"{path}: y is {y.dtype} {y.shape}; it must be classes ({len(X)},)")
    if y is not None and y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(f"{path}: y has a missing label")
        y = np.array([str(int(c)) if c == int(c) else str(c) for c in y])  # 1.0 is class 1
    with np.errstate(over="ignore"):
        X = np.ascontiguousarray(X.reshape(*X.shape[:2], -1), np.float32)  # (N, T) -> (N, T, 1)
    return Parsed(_usable(X, path), None if y is None else [str(c) for c in y.tolist()], [])


def _read_csv(data, path, columns):
    try:
        ids, labels, series = read_long(_text(data).removeprefix("\ufeff"), path, columns)
    except ValueError as e:
        raise DataError(str(e)) from None
    flat = np.concatenate([x.T.ravel() for x in series])
    lengths = np.array([[len(x)] * x.shape[1] for x in series])  # (N, D)
    return Parsed(_grid(flat, lengths, path), labels, [], ids)


# ---- the text of .ts and .arff


DATA_LINE = re.compile(rb"^[ \t]*@data[ \t]*$", re.IGNORECASE | re.MULTILINE)
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
LAST_FIELD = re.compile(rf",( ?(?:{QUOTED})|[^,]*)\Z".encode())
SEPARATOR = {"ts": b":", "relational": rb"\n", "flat": b"\n"}  # of variates; rb"\n": \ and n
NUMERIC = {"numeric", "real", "integer"}
IGNORED = {"problemname", "missing", "univariate", "dimension", "dimensions", "equallength"}
IGNORED |= {"serieslength", "relation", "timestamps", "targetlabel", "end"}


def _read_text(data, path):
    data = _plain(data)
    kind, labelled, classes, end = _header(data, path)
    known, flat, lengths, labels, lines = {*classes, "?"}, [], [], [], []
    body = io.BytesIO(data)
    body.seek(end)  # of the line @data, which is read as an empty one
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("error", DeprecationWarning)  # of numpy before 2.4, at bad text
        for line, record in enumerate(body, data.count(b"\n", 0, end) + 1):
            record = record.strip()
            if not record or record[:1] in b"#%":
                continue
            try:
                rows, label = _record(record, kind, labelled)
                flat.append(_numbers(b",".join(rows)))
                lengths.append([row.count(b",") + 1 for row in rows])
                if len(rows) != len(lengths[0]):
                    raise ValueError(f"{len(rows)} variates, but {len(lengths[0])} before")
                if labelled and not label:
                    raise ValueError("no class label at the end")
                if classes and label not in known:
                    names = ", ".join(classes)[:200]
                    raise ValueError(f"label {label[:40]!r} is not one of the header's {names}")
            except ValueError as e:
                raise DataError(f"{path}:{line}: {e}") from None
            labels.append(label)
            lines.append(line)
    if not lines:
        raise DataError(f"{path}: no record after @data")
    if {*labels} <= {"?", ""}:
        labels = None
    elif "?" in labels:
        raise DataError(f"{path}:{lines[labels.index('?')]}: the class label is missing")
    return Parsed(_grid(np.concatenate(flat), np.array(lengths), path), labels, classes)


def _plain(data):
    """Bytes without a byte order mark, each line end a single line feed."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _classes_of(path):
    """The class names in the header of `path`, without reading its data."""
    if path.suffix.lower() in (".npz", ".csv"):
        return []
    with open(path, "rb") as f:
        head = f.read(1 << 16)
        while not DATA_LINE.search(_plain(head)) and (more := f.read(len(head))):
            head += more
    return _header(_plain(head), path)[2]


def _header(data, path):
    """-> kind ("ts", "relational", "flat" = univariate .arff), labelled, classes, header's end."""
    mark = DATA_LINE.search(data)
    if not mark:
        raise DataError(f"{path}: has no @data line, so it is no whole .ts or .arff file in UTF-8")
    kinds, nested, labelled, classes = [], False, None, []  # kinds: types of the .arff's columns
    for i, line in enumerate(map(_text, data[: mark.start()].split(b"\n")), 1):
        word, rest = (*line.split(None, 1), "", "")[:2]
        key, flag = word.lower()[1:], rest.lower().split()[:1]
        attribute = re.match(rf"({QUOTED}|\S+)\s+(\S.*)", rest)
        nested = nested and key != "end"  # until @end: the columns of one row
        if nested or word[:1] in ("", "#", "%"):
            continue
        elif word[0] != "@":
            raise DataError(f"{path}:{i}: {line.strip()[:40]!r} is no line of a header")
        elif key == "classlabel" and flag in (["true"], ["false"]):
            labelled = flag == ["true"]
            classes = [_unquote(c) for c in re.findall(rf"{QUOTED}|\S+", rest)[1:] if labelled]
        elif key == "attribute" and attribute:
            kinds.append(attribute[2].strip())
            nested = kinds[-1].lower() == "relational"
            name = _unquote(attribute[1]).lower()
            if kinds[-1].lower() in NUMERIC and name in ("class", "target", "label"):
                raise DataError(f"{path}:{i}: a numeric class; a nominal one is needed")
        elif key in ("timestamps", "targetlabel") and flag == ["true"]:
            raise DataError(f"{path}:{i}: @{key} true is not supported")
        elif key not in IGNORED:
            raise DataError(f"{path}:{i}: cannot read {line.strip()[:60]!r}")
    if not kinds:
        if labelled is None:
            raise DataError(f"{path}: the header has neither @classLabel nor @attribute")
        return "ts", labelled, classes, mark.end()
    nominal = kinds[-1].startswith("{")
    labelled = nominal or kinds[-1].lower() == "string"
    values = [kind.lower() for kind in kinds[: len(kinds) - labelled]]
    if values != ["relational"] and not (values and {*values} <= NUMERIC):
        raise DataError(f"{path}: needs one relational or all numeric attributes, then the class")
    found = re.findall(rf"{QUOTED}|[^,\s'\"][^,]*", kinds[-1].strip("{} ")) if nominal else []
    kind = "relational" if values == ["relational"] else "flat"
    return kind, labelled, [_unquote(c) for c in found], mark.end()


def _record(line, kind, labelled):
    """One line of data -> (the text of each variate, values with commas between; class label)."""
    values, label = line, b""
    if kind == "ts" and labelled:
        values, colon, label = line.rpartition(b":")
        if not colon:
            raise ValueError("expected values, ':' and a class label")
    elif kind == "relational":
        end = line.find(line[:1], 1)
        after = line[end + 1 :].strip()
        if line[:1] not in (b"'", b'"') or end < 0 or after[:1] != b"," * labelled:
            form = r"'values\nvalues'" + ",label" * labelled
            raise ValueError(f"expected one quoted series, {form}")
        values, label = line[1:end], after[1:]
    elif labelled and (last := LAST_FIELD.search(line)):
        values, label = line[: last.start()], last[1]
    rows = values.split(SEPARATOR[kind])
    while len(rows) > 1 and kind == "relational" and not rows[-1].strip():
        rows.pop()  # SpokenArabicDigits ends each series with an empty row
    if rows == [b""]:
        raise ValueError("no values")
    return rows, _unquote(_text(label))


def _text(raw):
    """UTF-8, or the Latin-1 of some older files of the archive."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unquote(label):
    label = label.strip()
    if len(label) > 1 and label[0] in "'\"" and label[-1] == label[0]:
        label = re.sub(r"\\(.)", r"\1", label[1:-1])
    return label.strip()


def _numbers(text):
    """Fields with commas between -> (n,) float32, all at once, or one by one where that fails."""
    try:
        x = np.fromstring(text, sep=",").astype(np.float32)
        blank = (x == -1).any() and re.search(rb"(?:\A|,)\s+(?:,|\Z)", text)  # read as -1
        if len(x) == text.count(b",") + 1 and not np.isinf(x).any() and not blank:
            return x
    except (ValueError, DeprecationWarning):
        pass
    return np.array([number(_text(field)) for field in text.split(b",")], np.float32)


def _grid(flat, lengths, path):
    """Values by series, variate, time, and their lengths (N, D) -> X (N, T, D) float32, padded."""
    (N, D), T = lengths.shape, int(lengths.max())
    if N * D * T > MAX_PADDING * len(flat) + 1_000_000:
        raise DataError(
            f"{path}: one series has {T} values; padding all takes {4 * N * D * T} bytes"
        )
    X = np.full((N, D, T), np.nan, np.float32)
    X[np.arange(T) < lengths[:, :, None]] = flat
    return _usable(np.ascontiguousarray(X.transpose(0, 2, 1)), path)  # (N, D, T) -> (N, T, D)


def _usable(X, path):
    """X, unless it has an infinite value or nothing but missing ones."""
    if np.isinf(X).any():
        raise DataError(f"{path}: has a value that is infinite or beyond float32")
    if np.isnan(X).all():
        raise DataError(f"{path}: every value is missing")
    return X
