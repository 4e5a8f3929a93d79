"""The loader: each form of each format by hand, values by float(), and files that are wrong.

python -m pytest support/test_loader.py                # seconds
python -m pytest support/test_loader.py -m campaign    # 12 000 mutated files
"""

import contextlib
import io
import random
import re
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

import uea_loader
from support import archive
from support.conftest import put, refused
from uea_loader import DataError, load

TS = "@problemName t\n@timeStamps false\n@univariate false\n@classLabel true b a\n@data\n"
ARFF = (
    "@relation t\n@attribute bag relational\n@attribute t0 numeric\n@end bag\n"
    "@attribute class {'b, one',a}\n@data\n"
)
BARE = TS.replace("true b a", "true")  # a header that names no classes
FLAT = (
    "@RELATION u\n@Attribute t0 REAL\n@attribute t1\tinteger\n@attribute k {1,'x\\'s, y'}\n@DATA\n"
)


def same(X, rows):
    return X.dtype == np.float32 and np.array_equal(X, np.array(rows, "f4"), equal_nan=True)


# ---- the text of .ts and .arff


def test_numbers_are_bit_equal_to_float(tmp_path):
    """Fields of every style, against Python's float rounded once to float32; ties among them."""
    rng = random.Random(0)
    styles = ["%.6f", "%.2f", "%r", "%.18e", "%g", "%.0f", "%.12f", "-.%d", "+%.3f", "-%.5f", "%d."]
    fields = [
        s % (rng.randint(0, 9**9) if "d" in s else abs(rng.gauss(0, 10 ** rng.randint(-9, 9))))
        for s in styles
        for _ in range(200)
    ]
    fields += ["16777217", "33554434.9999999999", "1e-45", "-0.0", "00012.50", "1e-60"]
    for f in np.float32([rng.uniform(1, 999) for _ in range(200)]):
        middle = (float(f) + float(np.nextafter(f, np.float32(9999)))) / 2
        fields += [f"{middle:.{n}g}" for n in (16, 17, 21)]
    for extra in ([], ["?"]):  # all at once; one by one
        x = load(put(tmp_path / "x.ts", TS + ",".join(fields + extra) + ":a\n")).X[0, :, 0]
        want = np.array([float(f) for f in fields], np.float32)
        assert np.array_equal(x[: len(want)].view(np.uint32), want.view(np.uint32))


FIELDS = ["1.2.3", "1-2", "--1", "1e", "e5", "1e2e3", "1e2.5", ".", "-", "1_0", "0x1", "1/2", "a"]
FIELDS += ["inf", "1e39", "-infinity", "1;2", "\uff11", "1\xba2", "1 2", "1\x002", "3\\n4"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("old", [False, True])
def test_what_is_no_finite_number_is_refused_with_file_and_line(tmp_path, monkeypatch, field, old):
    def fromstring(text, sep, new=np.fromstring):  # numpy before 2.4: a warning and the good start
        try:
            return new(text, sep=sep)
        except ValueError:
            warnings.warn("not read to its end", DeprecationWarning, stacklevel=2)
            return np.array([1.0] * (text.count(b",") + 1))

    if old:
        monkeypatch.setattr(np, "fromstring", fromstring)
    path = put(tmp_path / "x.ts", TS + "1,2:3,4:a\n\n" + f"1,{field}:3,4:a\n")
    assert re.search(rf"x\.ts:8: '.*{re.escape(field[:1])}.* no finite number", refused(path))


FORMS = [  # text; series / timestamps, their variates; y; classes
    ("\ufeff" + TS + "1,?,3:4,,6:a\r\n\r\n# note\r\n nan,NaN , 3 :\t1e1,-.5,+2E+0:b\r\n",
     "1 4, ? ?, 3 6 / ? 10, ? -.5, 3 2", [1, 0], "b|a"),
    (TS + "1,2,3:4,5,6:b\n7:8,9:a\n%\n", "1 4, 2 5, 3 6 / 7 8, ? 9, ? ?", [0, 1], "b|a"),
    (TS + "-1, ,3: ,5,6:a\n", "-1 ?, ? 5, 3 6", [1], "b|a"),  # a field of blanks is missing
    (TS + "1,2,:?\n3,4,5:?\n", "1, 2, ? / 3, 4, 5", None, ""),
    (TS.replace("true b a", "false") + "1,2\n3,4\n", "1, 2 / 3, 4", None, ""),
    (BARE + "1,2:10\r3,4:9\r", "1, 2 / 3, 4", [1, 0], "9|10"),
    (BARE + "1:nan\n2:c\n3:-1\n", "1 / 2 / 3", [2, 1, 0], "-1|c|nan"),
    (TS.replace("b a", "é a").encode("latin-1") + b"1:\xe9\n", "1", [0], "é|a"),
    (ARFF + "'1,2\\n3,4\\n','b, one'\n% note\n\"5,?\\n7,8\" , a\n",
     "1 3, 2 4 / 5 7, ? 8", [0, 1], "b, one|a"),
    (ARFF.replace("@attribute t0", "@attribute class").replace("{'b, one',a}", "string")
     + "'1,2',x\n", "1, 2", [0], "x"),
    (FLAT + "1,2,1\n3,?,'x\\'s, y'\n", "1, 2 / 3, ?", [0, 1], "1|x's, y"),
    (FLAT.replace("{1,'x\\'s, y'}", "REAL") + "1,2,3\n", "1, 2, 3", None, ""),
]  # fmt: skip


@pytest.mark.parametrize("text, X, y, classes", FORMS)
def test_forms(tmp_path, text, X, y, classes):
    d = load(put(tmp_path / "x.ts", text))
    rows = [[row.split() for row in s.split(",")] for s in X.replace("?", "nan").split("/")]
    assert same(d.X, np.array(rows, float)) and d.X.flags.c_contiguous
    assert (d.y if y is None else d.y.tolist()) == y and "|".join(d.classes) == classes


PADDED = TS + "1:a\n" * 3000 + ",".join("1" * 9000) + ":a\n"


@pytest.mark.parametrize(
    "text, words",
    [
        (TS.replace("Stamps false", "Stamps true") + "1:a\n", "x.ts:2: @timestamps true"),
        (TS.replace("@classL", "@targetL").replace("true b a", "true") + "1:2\n", "x.ts:4: "),
        (TS + "1:c\n", "x.ts:6: label 'c' is not one of the header's b, a"),
        (TS, "no record after @data"),
        ("1,2:a\n", "no @data"),
        (TS + "1,2:3,4:a\n1,2:a\n", "x.ts:7: 1 variates, but 2"),
        (TS + "?,?:a\n", "every value is missing"),
        (TS + "1:a\n2:?\n", "x.ts:7: the class label is missing"),
        (BARE + "1:\n", "x.ts:6: no class label"),
        (PADDED, "padding"),
        (TS + "1\n", "x.ts:6: expected values, ':'"),
        ((TS + "1:a\n").encode("utf-16"), "UTF-8"),
        (ARFF + "1,2,a\n", "quoted series"),
        (ARFF + "'1,2'\n", "label"),
        (ARFF + "'1,2,a\n", "quoted series"),
        (ARFF + "'',a\n", "no values"),
        (TS + ":a\n", "x.ts:6: no values"),
        (ARFF + "'1:2\\n3,4',a\n", "'1:2' is no"),
        (FLAT + "1:2,1\n", "'1:2' is no"),
        (FLAT + "1\n", "no class label"),
        (FLAT.replace("t1\t", "class ") + "1\n", "x.ts:3: a numeric class"),
        (FLAT.replace("REAL", "date") + "1\n", "needs one relational or all numeric"),
        (TS.replace("@univ", "@unver") + "1:a\n", "x.ts:3: cannot read"),
        (TS.replace("@univ", "univ") + "1:a\n", "x.ts:3: 'univariate false' is no line"),
        (TS.replace("@classLabel", "#") + "1:a\n", "neither @classLabel nor @attribute"),
        (TS + "1e38:a\n1e39:a\n", "x.ts:7: '1e39'"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, words):
    refused(put(tmp_path / "x.ts", text), words)


def test_as_much_padding_as_is_allowed(tmp_path):
    d = load(put(tmp_path / "x.ts", PADDED.replace("1:a\n" * 3000, "1:a\n" * 110)))
    assert d.X.shape == (111, 9000, 1)


def test_a_header_that_contradicts_the_data_is_not_believed(tmp_path):
    for promised in (2, 4):  # as in CharacterTrajectories
        steps = "".join(f"@attribute t{i} numeric\n" for i in range(promised))
        head = f"@relation r\n@attribute b relational\n{steps}@end b\n@attribute c {{1}}\n@data\n"
        d = load(put(tmp_path / "x.arff", head + "'1,2,3\\n4,5,6',1\n"))
        assert same(d.X, [[[1, 4], [2, 5], [3, 6]]])


@pytest.mark.parametrize(
    "body",
    [
        b"@dimensions 99999999999\n@seriesLength 99999999999\n@classLabel true a\n@data\n1:a\n",
        b"@classLabel true a\n@data\n" + b"1:a\n" * 1_000 + b"1," * 200_000 + b"1:a\n",
        b"@classLabel true a\n@data\n1" + b" " * 500_000 + b"1:a\n",
        b"@classLabel true a\n@data\n" + b"-" * 2_000_000 + b":a\n",
        b"@classLabel true a\n@data\n" + b":" * 200_000 + b"a\n",
        b"@classLabel true " + b"'\\" * 100_000 + b"\n@data\n1:a\n",
    ],
)
def test_hostile_files_stay_within_memory(tmp_path, body):
    put(tmp_path / "h.ts", body)
    tracemalloc.start()
    with contextlib.suppress(DataError):
        load(tmp_path / "h.ts")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20 + 80 * len(body)


# ---- .npz


def test_npz(tmp_path):
    X = np.arange(12.0).reshape(2, 3, 2)

    def made(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    d = load(made(X=X, y=["k", "b"]))
    assert same(d.X, X) and d.y.tolist() == [1, 0] and d.classes == ["b", "k"] and d.name == "a"
    d = load(made(X=X[..., 0].astype(np.int8)))
    assert same(d.X, X[..., :1]) and d.y is None and d.classes == []
    floats = np.array([[1000001.0, 1000002.0], [1.5, 1.0], [0.1, 0.2]])
    for y, classes in zip(floats, (["1000001", "1000002"], ["1", "1.5"], ["0.1", "0.2"])):
        for dtype in (np.float64, np.float32):
            assert load(made(X=X, y=y.astype(dtype))).classes == classes
    assert load(made(X=X, y=[10, 9])).y.tolist() == [1, 0]
    refused(made(X=X, y=np.array(["a", 1], object)), "y.astype(str)")
    refused(made(y=X), "has no array X")
    refused(made(X=X, y=[1, 2, 3]), "y is int64 (3,); it must be classes (2,)")
    refused(made(X=X, y=[1j, 2]), "y is complex128")
    refused(made(X=X, y=[1, np.nan]), "missing label")
    refused(made(X=X * 1j), "X is complex128")
    refused(made(X=X[0, 0]), "(2,)")
    refused(made(X=X[:0]), "(0, 3, 2)")
    refused(made(X=X * np.nan), "every value is missing")
    refused(made(X=X * 1e300), "infinite or beyond float32")


def test_npz_traps(tmp_path, monkeypatch):
    def made(**members):
        with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in members.items():
                z.writestr(name.replace("_", "."), data)
        return tmp_path / "t.npz"

    good = io.BytesIO()
    np.save(good, np.zeros((2, 3)))
    assert load(made(X_npy=good.getvalue())).X.shape == (2, 3, 1)
    monkeypatch.setattr(archive, "MAX_INFLATE", 1)
    bomb = good.getvalue() + bytes(2 << 20)
    refused(made(X=bomb), "has no array X")  # numpy would read a member of this name as well
    refused(made(X_npy=bomb), "would unpack to")
    refused(made(X_npy=good.getvalue(), y_npy=bomb), "would unpack to")
    refused(made(X_npy=b"no header"), "not a readable .npz")
    refused(made(X_npy=good.getvalue()[:-8]), "not a readable .npz")
    refused(put(tmp_path / "d.npz", b"no zip"), "not a readable .npz")
    whole = made(X_npy=good.getvalue()).read_bytes()
    at = whole.index(b"X.npy") + 7
    refused(put(tmp_path / "d.npz", whole[:at] + b"\0\0" + whole[at + 2 :]), "not a readable .npz")


# ---- hopeless cases


def test_hopeless_cases(tmp_path, cache, monkeypatch):
    refused(tmp_path / "no.ts", "no.ts: no such file")
    refused("BasicMotions", "split is 'both'", split="both")
    refused("~nobody-has-this-name/x.ts", "no such file")
    path = put(cache / "Mine" / "Mine_TEST.ts", TS + "1:a\nx:b\n")
    assert refused("Mine", "Mine_TEST.ts:7: 'x'").endswith(f"again, delete {path.parent}")
    assert load(put(tmp_path / "X.TS", TS + "1:a\n"), "all").name == "X"
    monkeypatch.setattr(uea_loader, "_read_text", lambda *a: np.empty(1 << 58))
    refused(put(tmp_path / "x.ts", TS + "1:a\n"), "x.ts: does not fit into this machine's memory")
    refused("x" * 300 + ".ts", "File name too long")


def test_quotes_around_a_label_and_what_only_looks_like_them():
    cases = (
        ("'a b'", "a b"),
        ('"c"', "c"),
        ("''", ""),
        ("'", "'"),
        ("'a\"", "'a\""),
        ("a'b'", "a'b'"),
    )
    for text, label in cases:
        assert uea_loader._unquote(text) == label
    assert uea_loader._unquote(r"'x\'s, y'") == "x's, y"
