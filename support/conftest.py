"""What several tests of support/ use: `from support.conftest import put, refused`."""

import pytest

from uea_loader import DataError, load


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder: each test has one of its own, and a current folder of its own."""
    monkeypatch.setenv("EMTC_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def put(path, content):
    """Write `content`, str or bytes, to `path`, with the folders that it needs; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(what, *words, **options):
    """The one line, with all of `words` in it, by which `load` refuses `what`."""
    with pytest.raises(DataError) as e:
        load(what, **options)
    told = str(e.value)
    assert "\n" not in told and len(told) < 1000 and all(word in told for word in words), told
    return told
