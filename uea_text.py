"""The text of `.ts` and `.arff` files -> X (N, T, D) float32 and class labels. Bytes in, arrays out; no files.

What a header says about sizes, lengths and missing values is ignored: the data decide. Missing entries (`?`, `NaN`,
empty) and the end of shorter series are NaN. Time and memory stay proportional to the size of the text.
"""

import io
import math
import re
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 18       # bytes parsed at once: the temporaries stay in the processor's cache
FEW = 64              # so many odd fields are faster one by one than all at once
MAX_PADDING = 100     # cells of the padded array per value in the file


class DataError(ValueError):
    """The loader's one error: a single line that says what was given and what would be right."""

    def __init__(self, message):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


class Header(NamedTuple):
    kind: str             # "ts", "relational" (.arff) or "flat" (univariate .arff)
    labelled: bool
    classes: list[str]    # in the header's order; [] where it names none
    body: int             # where the data start
    line: int             # and in which line, from 1


class Parsed(NamedTuple):
    X: np.ndarray              # (N, T, D) float32, NaN = missing or padding
    labels: list[str] | None   # N class names
    classes: list[str]         # those that the header declares


# ---- header

DATA_LINE = re.compile(rb"^[ \t]*@data[ \t]*$", re.I | re.M)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_NUMERIC = {"numeric", "real", "integer"}
_IGNORED = "problemname missing univariate dimension dimensions equallength serieslength relation".split()


def plain(data):
    """Bytes without a byte order mark and with one \\n at the end of each line."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def read_header(data, where):
    """The header at the start of plain `data`; `where` names the file in errors."""
    if b"\0" in data:
        raise DataError(f"{where}: has NUL bytes, so it is not text in UTF-8")
    mark = DATA_LINE.search(data)
    if not mark:
        raise DataError(f"{where}: has no @data line, so it is not a whole .ts or .arff file")
    lines = data[:mark.start()].split(b"\n")
    kinds, nested, labelled, classes = [], False, None, []   # kinds: of the outer attributes of an .arff file
    for i, line in enumerate(lines, 1):
        if nested and b"@end" not in line.lower():
            continue
        line = _text(line)
        word, rest = (*line.split(None, 1), "", "")[:2]
        key, flag = word.lower()[1:], rest.lower().split()[:1]
        if word[:1] in ("", "#", "%") or word[0] == "@" and key in _IGNORED:
            continue
        elif word[0] != "@":
            raise DataError(f"{where}:{i}: {line.strip()[:40]!r} in the header, where only @, # and % lines belong")
        elif key == "classlabel" and flag in (["true"], ["false"]):
            labelled = flag == ["true"]
            classes = [_unquote(c) for c in re.findall(rf"{_QUOTED}|\S+", rest)[1:]] if labelled else []
        elif key in ("timestamps", "targetlabel") and flag in (["true"], ["false"]):
            if flag == ["true"]:
                raise DataError(f"{where}:{i}: @{key} true is not supported; values at even steps and classes are")
        elif key == "attribute" and (m := re.match(rf"({_QUOTED}|\S+)\s+(\S.*)", rest)):
            kinds.append(m[2].strip())
            nested = kinds[-1].lower() == "relational"   # until @end: the attributes of one row
            if kinds[-1].lower() in _NUMERIC and _unquote(m[1]).lower() in ("class", "target", "label"):
                raise DataError(f"{where}:{i}: a numeric class (regression) is not supported; a nominal one is needed")
        elif key == "end":
            nested = False
        else:
            raise DataError(f"{where}:{i}: cannot read {line.strip()[:60]!r}")
    if kinds:
        return _arff_header(kinds, where, mark.end() + 1, len(lines) + 1)
    if labelled is None:
        raise DataError(f"{where}: the header has neither @classLabel nor @attribute")
    return Header("ts", labelled, classes, mark.end() + 1, len(lines) + 1)


def _arff_header(kinds, where, body, line):
    """From the types of the outer attributes: one relational, or all numeric; then perhaps the class."""
    nominal = kinds[-1].startswith("{")
    labelled = nominal or kinds[-1].lower() == "string"
    values = [k.lower() for k in kinds[:len(kinds) - labelled]]
    if values != ["relational"] and not (values and {*values} <= _NUMERIC):
        raise DataError(f"{where}: the attributes must be one relational or all numeric, then one nominal class")
    names = re.findall(rf"{_QUOTED}|[^,\s'\"][^,]*", kinds[-1].strip("{} ")) if nominal else []
    kind = "relational" if values == ["relational"] else "flat"
    return Header(kind, labelled, [_unquote(c) for c in names], body, line)


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


# ---- body

def parse(data, where):
    """A whole file as `Parsed`; raises DataError with `where`, line and reason."""
    np.empty(16 << 20, np.uint8)   # freed untouched: from then on glibc keeps our temporaries, 2 us saved per 4 KB
    data = plain(data)
    head = read_header(data, where)
    known, names = {*head.classes, "?"}, {}   # names: label bytes -> class name
    parsed, labels, lines, held, size = [], [], [], [], 0
    stream = io.BytesIO(data)
    stream.seek(head.body)
    for i, line in enumerate(stream, head.line):
        line = line.strip()
        if not line or line[:1] in (b"#", b"%"):
            continue
        try:
            values, label = _RECORD[head.kind](line, head.labelled)
            if not values:
                raise ValueError("no values")
            if label not in names:
                names[label] = _class_name(label, head, known)
        except ValueError as e:
            raise DataError(f"{where}:{i}: {e}") from None
        labels.append(names[label])
        lines.append(i)
        held.append(values)
        size += len(values)
        if size > CHUNK:
            parsed += _fields(held, lines[-len(held):], where)
            held, size = [], 0
    if not labels:
        raise DataError(f"{where}: no record after @data")
    if held:
        parsed += _fields(held, lines[-len(held):], where)
    if {*labels} <= {"?", None}:
        labels = None
    elif "?" in labels:
        raise DataError(f"{where}:{lines[labels.index('?')]}: the class label is missing")
    x, after = (np.concatenate(p) for p in zip(*parsed))   # (values,), (values,)
    del parsed
    return Parsed(usable(_grid(x, after, lines, where), where), labels, head.classes)


def _class_name(label, head, known):
    if not head.labelled:
        return None
    name = _unquote(_text(label))
    if not name:
        raise ValueError("no class label at the end")
    if head.classes and name not in known:
        raise ValueError(f"label {name[:40]!r} is not one of the header's {', '.join(head.classes)[:200]}")
    return name


_ROW_END = re.compile(rb"\\n")


# One line of data -> (bytes with ',' between values and ':' between variates, label).

def _ts_record(line, labelled):
    if not labelled:
        return line, b""
    values, colon, label = line.rpartition(b":")
    if not colon:
        raise ValueError("expected values, ':' and a class label")
    return values, label


def _relational_record(line, labelled):
    end = line.find(line[:1], 1)
    rest = line[end + 1:].strip()
    if line[:1] not in (b"'", b'"') or end < 0 or bool(rest) != labelled or rest[:1] not in (b"", b","):
        raise ValueError("expected one quoted series, \\n between its rows" + ", a comma and a class label" * labelled)
    _no_colon(line, end)
    bag = _ROW_END.sub(b":", line[1:end])          # ten times faster than bytes.replace with two characters
    return bag.rstrip(b": \t"), rest[1:]           # SpokenArabicDigits ends each series with an empty row


def _flat_record(line, labelled):
    quote, cut = line[-1:], len(line)
    if labelled and quote in (b"'", b'"'):
        cut = line.rfind(quote, 0, cut - 1)
        while cut > 0 and line[cut - 1:cut] == b"\\":
            cut = line.rfind(quote, 0, cut)
    elif labelled:
        cut = line.rfind(b",") + 1
    values = line[:max(cut, 0)].rstrip()
    _no_colon(values, len(values))
    return values.removesuffix(b",") if labelled else values, line[max(cut, 0):]


def _no_colon(line, end):
    if line.find(b":", 0, end) >= 0:
        raise ValueError("':' among the values of an .arff file")


_RECORD = {"ts": _ts_record, "relational": _relational_record, "flat": _flat_record}


def _grid(x, after, lines, where):
    """Flat values and the separator after each -> X (N, T, D), shorter series padded with NaN at the end."""
    ends = np.flatnonzero(after != 44)                               # (N * D,) last value of each variate
    length = np.diff(ends, prepend=-1)                               # (N * D,)
    width = np.diff(np.flatnonzero(after[ends] == 10), prepend=-1)   # (N,)
    N, D, T = len(width), int(width[0]), int(length.max())
    if (width != D).any():
        i = int(np.argmax(width != D))
        raise DataError(f"{where}:{lines[i]}: {width[i]} variates, but {D} in the first record")
    if (length != T).any():
        if N * D * T > MAX_PADDING * len(x) + 1_000_000:
            raise DataError(f"{where}: one series has {T} values; padding the others to it would need "
                            f"{4 * N * D * T} bytes")
        short, x = x, np.full((N * D, T), np.nan, np.float32)
        x[np.arange(T) < length[:, None]] = short
    return np.ascontiguousarray(x.reshape(N, D, T).transpose(0, 2, 1))   # (N * D, T) -> (N, T, D)


def usable(X, where):
    """X, unless it has an infinite value or nothing but missing ones."""
    if np.isinf(X).any():
        raise DataError(f"{where}: has a value that is infinite or beyond float32")
    if np.isnan(X).all():
        raise DataError(f"{where}: every value is missing")
    return X


# ---- numbers, eight digits at a time

_PAD = b"0" * 31   # a first field to be dropped: every other then has 32 bytes before it
_P10 = np.array([float(f"1e{k}") for k in range(61)])
_SHIFT = np.append(1.0, _P10)   # by 1 + the digits after the dot, or by 0
# Arrays of no dimension: numpy is faster with them than with its scalars.
_ONE, _DOT, _ZERO, _HIGH, _OVER9 = (np.array(0x0101010101010101 * c, np.uint64) for c in (1, 0x2E, 0x30, 0x80, 0x76))
_3, _7, _60, _64, _255, _2E, _PLACE = (np.array(c, np.uint64) for c in (3, 7, 60, 64, 255, 0x2E, 0x8070605040302010))
_JOIN = [[np.array(c, np.uint64) for c in row] for row in (   # factor, shift, mask: 8 numbers of one digit -> 4 -> ...
    ((10 << 8) + 1, 8, 0x00FF00FF00FF00FF), ((100 << 16) + 1, 16, 0x0000FFFF0000FFFF),
    ((10_000 << 32) + 1, 32, 0xFFFFFFFF))]
_QUESTION, _NAN = (np.uint64(int.from_bytes(t, "little")) for t in (b"?", b"nan"))
_FIELD, _BLANK = re.compile(rb"[^,:\n]*"), re.compile(rb"(?<=[,:\n])[ \t]+|(?<![ \t])[ \t]+(?=[,:\n])")


class _BadField(Exception):
    """args: (record index, text)"""


def _fields(records, lines, where):
    """-> [(values float32 (n,), the separator after each uint8 (n,)), ...] of some records in these lines."""
    text = b"\n".join([_PAD, *records, b""])
    if b" " in text or b"\t" in text:
        text = _BLANK.sub(b"", text)
    out, row, start = [], 0, len(_PAD) + 1
    while start < len(text):
        stop = len(text)
        if stop - start > 4 * CHUNK:   # a very long record is cut between two values
            stop = 1 + max(text.rfind(c, start, start + CHUNK) for c in (b",", b":", b"\n"))
        try:
            if not stop:
                raise _BadField(0, text[start:start + 80])
            out.append(_numbers(_PAD + b"\n" + text[start:stop] if len(text) > 4 * CHUNK else text))
        except _BadField as e:
            raise DataError(f"{where}:{lines[row + e.args[0]]}: {_text(e.args[1])[:40]!r} is no finite number, "
                            "? or NaN") from None
        row += text.count(b"\n", start, stop) if stop < len(text) else 0
        start = stop
    return out


def _numbers(text):
    """Fields of `text` after _PAD and \\n -> (values float32 (n,), the separator after each uint8 (n,)).

    Bit-equal to float32(float(field)). Up to 15 digits and a power of ten up to 22, float64 arithmetic gives the
    correctly rounded float64 (Clinger 1990). Otherwise the error is below 2^-50, and a value is taken only where
    that cannot change the float32. What is left is read one by one.
    """
    b = np.frombuffer(text, np.uint8)
    stops = b == 44                                                 # , : \n
    stops |= b == 58
    stops |= b == 10
    exponents = _more_than_few(text, b"e") or _more_than_few(text, b"E")
    if exponents:
        stops |= b | 32 == 101
    at = np.flatnonzero(stops)
    end, start = at[1:], at[:-1] + 1                                # (n,)
    after, first = b[end], b[start]
    minus = first == 45
    length = end - start
    length -= minus | (first == 43)
    value, digits, place, ok = _digits(text, end, length)
    if exponents:
        keep, power = _join_exponents(end, after, minus, length, value, digits, place, ok)
        start, end, after, minus, value, ok = (a[keep] for a in (start, end, after, minus, value, ok))
        value *= _P10[np.maximum(power, 0)]
        value /= _P10[np.maximum(-power, 0)]
    else:
        value /= _SHIFT[place]
    with np.errstate(over="ignore"):
        x = value.astype(np.float32)
        x.view(np.uint32)[:] |= minus.astype(np.uint32) << 31       # the sign bit
        if exponents or digits.max() > 15:
            ok &= (value * (1 - 2**-50)).astype(np.float32) == (value * (1 + 2**-50)).astype(np.float32)
        if not ok.all():
            _one_by_one(text, x, start, end, after, np.flatnonzero(~ok))
    return x, after


def _digits(text, end, length):
    """Fields of `length` characters before `end`: digits, with at most one dot among them.

    -> (the digits as one float64, their number, 1 + how many follow the dot or 0, whether the field is such), each (n,).
    """
    words = _words(text)
    value, digits, place, ok = _eight(words[end - 8], np.minimum(length, 8))
    for skip in (8, 16):   # of the longer fields the 8 characters before those, and again
        some = np.flatnonzero(length > skip)
        if len(some) <= FEW:
            ok[some] = False
            break
        more, count, dot, good = _eight(words[end[some] - skip - 8], np.minimum(length[some] - skip, 8))
        value[some] += more * _P10[digits[some]]
        ok[some] &= good & ((dot == 0) | (place[some] == 0))   # one dot at most
        digits[some] += count
        place[some] += np.where(dot, dot + skip, 0)
    ok &= digits > 0
    ok &= length <= 24
    return value, digits, place, ok


def _eight(w, size):
    """Words (overwritten) of which the last `size` <= 8 characters count, with at most one dot among them.

    -> (the digits as one float64, their number, 1 + digits behind the dot or 0, whether they are digits), each (n,).
    In place throughout, because memory traffic is what it costs.
    """
    size = size.view(np.uint64)
    free = _64 - (size << _3)
    w >>= free
    w <<= free                              # zeros before the field
    dot = w ^ _DOT
    t = dot - _ONE
    np.invert(dot, out=dot)
    dot &= t
    dot &= _HIGH                            # highest bit of the byte that holds a dot
    has = (dot != 0).astype(np.uint64)
    count = size - has
    dot >>= _7                              # now 1 in that byte
    w ^= np.multiply(dot, _2E, out=t)
    np.subtract(dot, has, out=t)
    t &= w
    t *= _255
    w += t                                  # what stands before the dot moves up over it
    has <<= _3
    has += free
    w ^= np.left_shift(_ZERO, has, out=t)   # a byte for each digit
    np.add(w, _OVER9, out=t)
    t |= w
    t &= _HIGH
    good = t == 0                           # nothing but digits, and no second dot
    for factor, shift, mask in _JOIN:
        w *= factor
        w >>= shift
        w &= mask
    dot *= _PLACE
    dot >>= _60
    return w.astype(np.float64), count.view(np.int64), dot.view(np.int64), good


def _join_exponents(end, after, minus, length, value, digits, place, ok):
    """Mantissa and exponent were read as two fields, with e or E between: put them into the first, in place.

    -> (indices (m,) of the fields that remain, the power of ten of each).
    """
    e = np.flatnonzero(after | 32 == 101)
    x = e + 1
    power = -np.maximum(place - 1, 0)
    shift = np.where(minus[x], -value[x], value[x])
    ok[e] &= ok[x] & (length[x] == digits[x]) & (digits[x] <= 3) & (after[x] | 32 != 101)
    ok[e] &= abs(shift + power[e]) <= 60
    power[e] += np.where(ok[e], shift, 0).astype(np.int64)
    end[e], after[e] = end[x], after[x]
    keep = np.ones(len(end), bool)
    keep[x] = False
    keep = np.flatnonzero(keep)
    return keep, power[keep]


def _more_than_few(text, character):
    at = -1
    for _ in range(FEW + 1):
        at = text.find(character, at + 1)
        if at < 0:
            return False
    return True


def _words(text):
    """The eight characters from each position on as one integer: a view, (len(text) - 7,) uint64."""
    return np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))


def _one_by_one(text, x, start, end, after, rest):
    """Fill x (in place) at `rest`: missing entries, and what the fast path may not decide."""
    if len(rest) > FEW:   # '?', 'NaN' in any case, and nothing, all at once
        length = end[rest] - start[rest]
        spare = np.clip(8 - length, 0, 8).astype(np.uint64) * np.uint64(8)
        word = (_words(text)[end[rest] - 8] | np.uint64(0x2020202020202020)) >> spare
        missing = (word == _QUESTION) & (length == 1) | (word == _NAN) & (length == 3) | (length == 0)
        x[rest[missing]] = np.nan
        rest = rest[~missing]
    for i, at in zip(rest.tolist(), start[rest].tolist()):
        field = _FIELD.match(text, at)[0].strip()
        try:
            value = float(field) if field not in (b"", b"?") else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value) or b"_" in field:
            raise _BadField(int((after[:i] == 10).sum()), field)
        x[i] = value
