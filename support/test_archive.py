"""Where data sets are found, and the copies in the cache. Downloads: test_download.py."""

import os

import numpy as np
import pytest

import uea_loader
from support import archive
from support.conftest import put, refused
from uea_loader import load

TS = "@problemName t\n@classLabel true b a\n@data\n"


# ---- finding


def test_places_and_formats_in_their_order(tmp_path, cache):
    def x(**options):
        return load("Mine", download=False, **options).X[0, 0, 0]

    refused("Mine", "unknown data set 'Mine'; close matches: EmoPain, MindReading; data of your")
    data = tmp_path / "data"
    for i, place in enumerate([cache, cache / "Mine", data, data / "Mine"]):
        put(place / "Mine_TEST.ts", f"{TS}{i}:a\n")
        assert x() == i
    for i, place in enumerate([tmp_path / "my", tmp_path / "my" / "Mine"], 7):
        put(place / "Mine_TEST.ts", f"{TS}{i}:a\n")
        assert x(data_dir=tmp_path / "my") == i
    assert load("my").name == "Mine"  # a folder of another name that holds one data set
    refused("mine", "close matches: Mine")
    refused("Epilepsi", "close matches: Epilepsy")
    refused("Epilepsy", "download is off; by hand: put", "records/11206204", download=False)
    refused("Mine", "nowhere: no such folder", data_dir=tmp_path / "nowhere")
    refused("my", "my: holds no Mine_TRAIN and Mine_TEST as .ts or .arff", split="all")
    refused("..", "holds no")
    bad = ("Epilepsy/..", "../Mine", "a/Epilepsy", "Epilepsy\0", "..\\Epilepsy", "", "x" * 300)
    for name in bad:
        refused(name, name[:2])


def test_a_lone_split_does_not_hide_a_pair(tmp_path, cache):
    arff = "@attribute t numeric\n@attribute k {a}\n@data\n5,a\n"
    for folder in (tmp_path / "Own", cache / "Epilepsy"):
        put(folder / f"{folder.name}_TRAIN.ts", TS + "1:b\n")
        put(folder / f"{folder.name}_TRAIN.arff", arff)
        put(folder / f"{folder.name}_TEST.arff", arff)
    for name in ("Own", "Epilepsy"):
        for split, n in (("train", 1), ("test", 1), ("all", 2)):
            d = load(name, split, download=False)
            assert d.X[:, 0, 0].tolist() == [5] * n and d.classes == ["a"]
    (tmp_path / "Own" / "Own_TEST.arff").unlink()
    assert load("Own", "train").classes == ["b", "a"]  # of two lone ones the first format


def test_usual_cache_folder(monkeypatch):
    places = {"HOME": "/h", "LOCALAPPDATA": "/l", "XDG_CACHE_HOME": "/x", "EMTC_DATA": "/e"}
    for name in places:
        monkeypatch.delenv(name, raising=False)
    for name, want in zip(places, ("/h/.cache/emtc", "/l/emtc", "/x/emtc", "/e")):
        monkeypatch.setenv(name, places[name])
        assert str(archive.cache_folder()) == want


# ---- copies


def test_binary_copy_is_checked_and_never_trusted_when_broken(tmp_path, cache, monkeypatch):
    path = put(tmp_path / "x.ts", TS + "1,2:a\n3:b\n")
    first = load(path)
    assert not (cache / "parsed").exists()  # a small text is read each time
    monkeypatch.setattr(uea_loader, "COPY_FROM", 23)
    load(path)
    [copy] = (cache / "parsed").iterdir()
    whole, read = copy.read_bytes(), uea_loader._read_text
    monkeypatch.setattr(uea_loader, "_read_text", lambda *a: pytest.fail("read again"))
    again = load(path)
    assert np.array_equal(again.X, first.X, equal_nan=True) and again.X.flags.writeable
    assert again.y.tolist() == [1, 0] and again.classes == ["b", "a"] and again.ids is None
    monkeypatch.setattr(uea_loader, "_read_text", read)
    at = whole.index(first.X.tobytes())
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for broken in (whole[:-3], whole[:20], b"", flipped, whole.replace(b"rest.npy", b"rust.npy")):
        copy.write_bytes(broken)
        assert np.array_equal(load(path).X, first.X, equal_nan=True)
        assert copy.read_bytes()[-40:] == whole[-40:]
    stat = os.stat(path)
    put(path, TS + "1,7:a\n3:b\n")  # same size, same time: the content decides
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(path).X[0, 1, 0] == 7 and len([*(cache / "parsed").iterdir()]) == 1
    load(put(tmp_path / "y.ts", TS + "1,2:a\n3:b\n"))
    assert len([*(cache / "parsed").iterdir()]) == 2  # each file has its own copy
    table = put(tmp_path / "t.csv", "id,unit,v\na,b,1\nc,b,2\n")
    assert load(table).ids == load(table).ids == ["a", "c"]
    assert load(table, id_column="unit").ids == ["b"]  # another reading of the same text
    monkeypatch.setenv("EMTC_DATA", str(path))  # a cache folder that cannot be
    assert load(path).X[0, 1, 0] == 7
