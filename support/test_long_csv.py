"""Tables in long form, one's own data: `python -m pytest support/test_long_csv.py`."""

import numpy as np
import pytest

from support.conftest import put, refused
from support.long_csv import read_long
from uea_loader import load

LOGS = "id,time,note,a,class,b\nq,2,x,12,u,?\nq,1,,11,,0.5\n\np,9,y,21,v,1e-3\nq,10,z,13,u,-4\n"


def read(tmp_path, text, **columns):
    return load(put(tmp_path / "logs.csv", text), **columns)


def same(X, rows):
    return X.dtype == np.float32 and np.array_equal(X, np.array(rows, "f4"), equal_nan=True)


def test_long_form(tmp_path):
    """Rows of one series may be apart and out of order; the column `note` has no number in it."""
    want = [[[11, 0.5], [12, None], [13, -4]], [[21, 1e-3], [None] * 2, [None] * 2]]
    for text in (LOGS, "\ufeff" + LOGS.replace(",", ";"), LOGS.replace(",", "\t")):
        X, y, classes, name, ids = read(tmp_path, text)
        assert same(X, want) and X.flags.c_contiguous and ids == ["q", "p"]
        assert (y.tolist(), classes, name) == ([0, 1], ["u", "v"], "logs")
    assert read(tmp_path, LOGS.replace(",u,", ",z,")).y.tolist() == [1, 0]  # in sorted order
    dates = LOGS.replace("q,2", "q,2024-03-31T03:30+02:00").replace("q,1,", "q,2024-03-31 01:29,")
    dates = dates.replace("q,10", "q,2024-03-31T01:30:00.5").replace("p,9", "p,2024-01-01")
    assert same(read(tmp_path, dates).X, want)
    assert same(read(tmp_path, LOGS.replace("time", "x")).X[0, :, 0], [2, 1, 10])  # as they stand


def test_other_columns(tmp_path):
    text = LOGS.replace("id,time", '"unit, nr",t').replace("class", "kind")
    names = {"id_column": "unit, nr", "time_column": "t", "class_column": "kind"}
    d = read(tmp_path, text, **names)
    assert d.X.shape == (2, 3, 2) and d.X[0, 0, 0] == 11 and d.y.tolist() == [0, 1]
    d = read(tmp_path, ",id , v\n0,s, 5\n1,r,NA\n2,s,null\n")  # the first as pandas writes it
    assert same(d.X, [[[5], [None]], [[None], [None]]]) and d.y is None and d.ids == ["s", "r"]
    d = read(tmp_path, "Id,TIME,v,Class\ns,2,5,1\ns,1,6,1\n")  # labels are no variate
    assert same(d.X, [[[6], [5]]]) and d.y.tolist() == [0] and d.ids == ["s"]
    for usual in ("id", "time", "class"):
        told = f"logs.csv:1: {usual}_column 'k' must be one of the"
        refused(put(tmp_path / "logs.csv", LOGS), told, **{f"{usual}_column": "k"})


WIDE = "id,v\n" + "".join(f"{i},1\n" for i in range(2000)) + "x,1\n" * 9000


@pytest.mark.parametrize(
    "text, words",
    [
        (
            LOGS.replace("id", "unit"),
            ":1: id_column 'id' must be one of the columns, which are unit, time, ",
        ),
        ("id,id,v\na,a,1\n", ":1: id_column 'id'"),
        ("time,id,time\n1,a,1\n", ":1: time_column 'time'"),
        ("", ":0: id_column 'id'"),
        (LOGS.replace("12,u", "12"), ":2: 5 fields, but 6 in the header"),
        (LOGS.replace("p,9", " ,9"), ":5: the id is missing"),
        (LOGS.replace("13,u", "13,v"), ":6: 'q' has the class 'u' above"),
        (LOGS.replace(",v,", ",,"), ": 'p' has no class, and other series have one"),
        (LOGS.replace("q,1,", "q,noon,"), ":3: the time 'noon' is no number"),
        (LOGS.replace("q,1,", "q,nan,"), ":3: the time 'nan'"),
        (LOGS.replace("1e-3", "1e39"), ":5: '1e39' is no finite number"),
        (LOGS.replace("13", "1_3"), ":6: '1_3'"),
        (LOGS.replace("13", "x" * 99), f":6: '{'x' * 40}' is"),
        (LOGS.replace("p,9", 'p,"9" '), ":5: ',' expected after"),
        ("id;v;w\na;1;2,5\n", ":2: a number with a decimal comma"),
        ("id,time\na,1\n", "holds no numbers beside the columns id, time, class"),
        ("id,v\n", "holds no numbers"),
        (WIDE, "one series has 9000"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, words):
    told = refused(put(tmp_path / "logs.csv", text))
    assert f"logs.csv{words}" in told or f": {words}" in told


def test_series_as_they_are():
    ids, labels, series = read_long("id,v,w\na,1,2\nb,3,4\na,5,\n", "x")
    assert ids == ["a", "b"] and labels is None
    assert same(series[0], [[1, 2], [5, None]]) and same(series[1], [[3, 4]])


def test_two_splits_have_one_label_map(tmp_path):
    for split, rows in (("TRAIN", "r,1,9\nr,2,9\n"), ("TEST", "s,3,10\n")):
        (tmp_path / f"C_{split}.csv").write_text("id,v,class\n" + rows)
    d = load(tmp_path, "all")
    assert same(d.X, [[[1], [2]], [[3], [None]]]) and d.ids == ["r", "s"]
    assert d.classes == ["9", "10"]
    assert load(tmp_path).y.tolist() == [1] and load(tmp_path).ids == ["s"]
