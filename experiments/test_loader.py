"""The loader under attack: mutated files, hostile zips and servers (a real HTTP server on loopback), broken caches.

    pytest experiments/test_loader.py                # under 10 s
    pytest experiments/test_loader.py -m campaign    # 12 000 mutations
"""

import http.server
import io
import json
import os
import stat
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]
import fuzz_loader  # noqa: E402
import uea_loader  # noqa: E402
import uea_text  # noqa: E402
from uea_loader import DataError, load  # noqa: E402

TS = "@problemName t\n@timeStamps false\n@univariate false\n@classLabel true b a\n@data\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, with one thing in it that must survive."""
    folder = tmp_path / "cache"
    (folder / "Other").mkdir(parents=True)
    (folder / "Other" / "keep.txt").write_text("kept")
    monkeypatch.setenv("EMTC_DATA", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def one_line(call):
    with pytest.raises(DataError) as e:
        call()
    assert "\n" not in str(e.value) and len(str(e.value)) < 600
    return str(e.value)


# ---- files

def test_short_fuzz_loads_or_refuses():
    report = fuzz_loader.campaign(300, seed=1, memory=False)
    assert report["not_allowed"] == [] and report["outcomes"]["refused"] > 100
    assert sum(n for outcome, n in report["outcomes"].items() if outcome.startswith("loaded")) > 20


@pytest.mark.campaign
def test_long_fuzz_loads_or_refuses():
    assert fuzz_loader.campaign(12_000)["not_allowed"] == []


def test_fuzz_sees_what_it_should(tmp_path, monkeypatch):
    """The judge itself: an unsound array, an infinite value and a stray exception are not allowed."""
    good = uea_loader.Dataset(np.zeros((2, 3, 1), np.float32), np.array([0, 1]), ["a", "b"], "x")
    for made in (good._replace(X=good.X.astype(float)), good._replace(X=good.X[:0]), good._replace(X=good.X + np.inf),
                 good._replace(y=np.array([0, 2])), good._replace(y=np.array([0])), good._replace(X=good.X * np.nan)):
        monkeypatch.setattr(fuzz_loader, "load", lambda path, made=made: made)
        assert fuzz_loader.outcome("x") not in fuzz_loader.ALLOWED
    monkeypatch.setattr(fuzz_loader, "load", lambda path: {}[path])
    assert fuzz_loader.outcome("x").startswith("KeyError")


@pytest.mark.parametrize("body", [
    b"@dimensions 99999999999\n@seriesLength 99999999999\n@classLabel true a\n@data\n1:a\n",   # believed by nobody
    b"@classLabel true a\n@data\n" + b"1:a\n" * 20_000 + b"1," * 50_000 + b"1:a\n",   # 4 GB of padding
    b"@classLabel true a\n@data\n1" + b" " * 500_000 + b"1:a\n",                # blanks: no regex blow-up
    b"@classLabel true a\n@data\n" + b"-" * 2_000_000 + b":a\n",
    b"@classLabel true a\n@data\n" + b":" * 200_000 + b"a\n",
    b"@classLabel true " + b"'\\" * 100_000 + b"\n@data\n1:a\n"])
def test_hostile_files_stay_within_memory(tmp_path, body):
    (tmp_path / "h.ts").write_bytes(body)
    tracemalloc.start()
    result = fuzz_loader.outcome(tmp_path / "h.ts")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result in fuzz_loader.ALLOWED and peak < 20 * 2**20 + 80 * len(body)


def test_character_trajectories_form(tmp_path):
    """A header that promises 4 steps over data with 3, and the other way round: the data decide."""
    for promised in (2, 4):
        head = "@relation r\n@attribute b relational\n" + "".join(f"@attribute t{i} numeric\n" for i in range(promised))
        (tmp_path / "x.arff").write_text(head + "@end b\n@attribute c {1}\n@data\n'1,2,3\\n4,5,6',1\n")
        assert load(tmp_path / "x.arff").X.tolist() == [[[1, 4], [2, 5], [3, 6]]]


def test_two_long_records_are_cut_into_pieces_and_named_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(uea_text, "CHUNK", 64)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5, 2, 300)).round(4)
    lines = [":".join(",".join(map(repr, c)) for c in x.tolist()) + ":a" for x in X]
    (tmp_path / "x.ts").write_text(TS + "\n".join(lines))
    assert np.array_equal(load(tmp_path / "x.ts").X, X.astype(np.float32).transpose(0, 2, 1))
    lines[3] = lines[3].replace(",", ",x", 250)
    (tmp_path / "x.ts").write_text(TS + "\n".join(lines))
    assert "x.ts:9: 'x" in one_line(lambda: load(tmp_path / "x.ts"))
    (tmp_path / "x.ts").write_text(TS + "1:2:a\n" * 3 + ",x".join(lines[0].rsplit(",", 1)))   # at the end of a long one
    assert "x.ts:9: 'x" in one_line(lambda: load(tmp_path / "x.ts"))
    (tmp_path / "x.ts").write_text(TS + "1" * 999 + ":a\n")
    assert "x.ts:6: " in one_line(lambda: load(tmp_path / "x.ts"))


def test_npz(tmp_path):
    X = np.arange(12.0).reshape(2, 3, 2)
    np.savez(tmp_path / "a.npz", X=X, y=["k", "b"])
    np.savez(tmp_path / "b.npz", X=X[..., 0])
    np.savez(tmp_path / "c.npz", X=np.array([{}]))
    d = load(tmp_path / "a.npz")
    assert np.array_equal(d.X, X) and d.X.dtype == np.float32 and d.y.tolist() == [1, 0] and d.classes == ["b", "k"]
    assert load(str(tmp_path / "b.npz")).X.shape == (2, 3, 1) and load(tmp_path / "b.npz").y is None
    (tmp_path / "d.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "e.npz", X=np.array([Mine()], dtype=object))
    for name in "cde":
        one_line(lambda: load(tmp_path / f"{name}.npz"))
    assert not (tmp_path / "unpickled").exists()


class Mine:
    """Unpickling one leaves a trace."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def test_no_memory_is_one_line(tmp_path, monkeypatch):
    def parse(*args):
        raise MemoryError
    monkeypatch.setattr(uea_loader, "parse", parse)
    (tmp_path / "x.ts").write_text(TS + "1:a\n")
    assert "memory" in one_line(lambda: load(tmp_path / "x.ts"))


def test_binary_copy_is_checked_and_never_trusted_when_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(uea_loader, "COPY_FROM", 1)
    (tmp_path / "x.ts").write_text(TS + "1,2:a\n3:b\n")
    first = load(tmp_path / "x.ts")
    [copy] = (tmp_path / "cache" / "parsed").iterdir()
    whole = copy.read_bytes()
    monkeypatch.setattr(uea_loader, "parse", lambda *a: pytest.fail("parsed again"))
    again = load(tmp_path / "x.ts")
    assert np.array_equal(first.X, again.X, equal_nan=True) and again.y.tolist() == [1, 0] and again.X.flags.writeable
    monkeypatch.setattr(uea_loader, "parse", uea_text.parse)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for broken in (whole[:-3], whole[:20], b"", flipped, whole.replace(b'"a"', b'"b"'), b"\0" * 99):
        copy.write_bytes(broken)
        assert np.array_equal(load(tmp_path / "x.ts").X, first.X, equal_nan=True) and copy.read_bytes() == whole
    stat = os.stat(tmp_path / "x.ts")
    (tmp_path / "x.ts").write_text(TS + "1,7:a\n3:b\n")   # same size, same time: the content decides
    os.utime(tmp_path / "x.ts", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(tmp_path / "x.ts").X[0, 1, 0] == 7
    monkeypatch.setenv("EMTC_DATA", str(tmp_path / "x.ts"))   # a cache folder that cannot be
    assert load(tmp_path / "x.ts").X[0, 1, 0] == 7
    assert {p.name for p in tmp_path.iterdir()} == {"x.ts", "cache"} and json.dumps(first.classes) == '["b", "a"]'


# ---- downloads

def ts_zip(name="Epilepsy", extra=(), drop=(), text=None):
    """A good zip with both splits and two files nobody asked for; `extra` are (ZipInfo or name, bytes)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for split in ("TRAIN", "TEST"):
            if split not in drop:
                z.writestr(f"{name}_{split}.ts", text or TS + "1,2:a\n3,4:b\n")
        z.writestr(f"{name}Dimension1_TRAIN.arff", "not needed")
        z.writestr("readme.txt", "not needed")
        for member, data in extra:
            z.writestr(member, data)
    return out.getvalue()


def symlink():
    info = zipfile.ZipInfo("Epilepsy_LINK")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted():
    data = bytearray(ts_zip())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    return bytes(data)


@pytest.fixture
def serve(monkeypatch):
    """serve(handler) -> list of the paths asked for; handler(request) answers, on 127.0.0.1."""
    servers = []

    def start(answer):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass   # the client has had enough

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(uea_loader, "URL", f"http://127.0.0.1:{server.server_port}/{{name}}.zip")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(body, status=200, length=None):
    def answer(request):
        request.send_response(status)
        if length is not False:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)
    return answer


def test_download_once_then_offline(serve, cache):
    asked = serve(send(ts_zip()))
    before = tree(cache)
    d = load("Epilepsy")
    assert d.X.tolist() == [[[1], [2]], [[3], [4]]] and d.y.tolist() == [1, 0] and d.name == "Epilepsy"
    new = {k: v for k, v in tree(cache).items() if k not in before}
    assert sorted(new) == ["Epilepsy", "Epilepsy/Epilepsy_TEST.ts", "Epilepsy/Epilepsy_TRAIN.ts"]
    assert load("Epilepsy", "all").X.shape == (4, 2, 1) and asked == ["/Epilepsy.zip"]
    (cache / "Epilepsy" / "Epilepsy_TEST.ts").unlink()   # one split lost: fetched again, nothing else touched
    assert load("Epilepsy").y.tolist() == [1, 0] and len(asked) == 2 and tree(cache) == before | new


def test_no_content_length_is_fine_if_the_zip_is_whole(serve):
    serve(send(ts_zip(), length=False))
    assert load("Epilepsy").X.shape == (2, 2, 1)


def stall(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"PK")
    request.wfile.flush()
    time.sleep(3)


def trickle(request):
    for _ in range(60):   # headers that never end, each byte well within the silence that is allowed
        request.wfile.write(b"X")
        request.wfile.flush()
        time.sleep(0.05)


ATTACKS = {
    "404": (send(b"gone", 404), "404"),
    "html": (send(b"<!DOCTYPE html><html>Sorry</html>"), "no zip"),
    "empty": (send(b""), "no zip"),
    "truncated": (send(ts_zip()[:200], length=5000), "announced 5000"),
    "truncated, no length": (send(ts_zip()[:-30], length=False), "no zip"),
    "nonsense length": (send(ts_zip(), length="many"), ""),
    "stall": (stall, "timed out"),
    "trickle": (trickle, "not done after"),
    "too large": (send(ts_zip(extra=[("big.bin", os.urandom(300_000))])), "more than"),
    "climbs out": (send(ts_zip(extra=[("../../evil.ts", "x")])), "unsafe"),
    "climbs out, backslash": (send(ts_zip(extra=[("..\\evil.ts", "x")])), "unsafe"),
    "absolute": (send(ts_zip(extra=[("/tmp/evil.ts", "x")])), "unsafe"),
    "link": (send(ts_zip(extra=[(symlink(), "/etc/passwd")])), "unsafe"),
    "bomb": (send(ts_zip(text=TS + "1" + " " * 20_000_000 + ":a\n")), "unpack"),
    "split missing": (send(ts_zip(drop=["TEST"])), "holds no"),
    "wrong name": (send(ts_zip("Other")), "holds no"),
    "encrypted": (send(encrypted()), "encrypted"),
    "damaged": (send(ts_zip().replace(b"\x00\x00\x08\x00", b"\x00\x00\x63\x00")), ""),
    "html inside": (send(ts_zip(text="<html>\n@data\n")), "in the header"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_one_line_and_leaves_the_cache_as_it_was(attack, serve, cache, tmp_path, monkeypatch):
    answer, words = ATTACKS[attack]
    monkeypatch.setattr(uea_loader, "STALL_S", 0.4)
    monkeypatch.setattr(uea_loader, "TOTAL_S", 1.0)
    monkeypatch.setattr(uea_loader, "MAX_ZIP", 200_000)
    monkeypatch.setattr(uea_loader, "MAX_INFLATE", 10)
    serve(answer)
    before = tree(tmp_path)
    message = one_line(lambda: load("Epilepsy"))
    assert words in message and "by hand: " in message and str(cache / "Epilepsy") in message
    assert tree(tmp_path) == before


def test_no_server_and_no_network_name(serve, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(uea_loader, "URL", "http://127.0.0.1:9/{name}.zip")   # the discard port: nobody there
    before = tree(tmp_path)
    assert "by hand" in one_line(lambda: load("Epilepsy")) and tree(tmp_path) == before


def test_names_with_a_path_ask_no_server(serve, tmp_path):
    asked = serve(send(ts_zip()))
    for name in ("../Epilepsy", "a/Epilepsy", "/Epilepsy", "..", "", "Epilepsy/..", "..\\Epilepsy", "Epilepsy\0",
                 "Epilepsi", "x" * 300):
        one_line(lambda: load(name))
    assert asked == []


def test_cache_folder_that_cannot_be_made(serve, tmp_path, monkeypatch):
    serve(send(ts_zip()))
    monkeypatch.setenv("EMTC_DATA", str(tmp_path / "cache" / "Other" / "keep.txt"))
    assert "by hand" in one_line(lambda: load("Epilepsy"))


def test_two_downloads_at_once(serve, cache):
    serve(send(ts_zip()))
    got = []
    threads = [threading.Thread(target=lambda: got.append(load("Epilepsy").X.shape)) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [(2, 2, 1)] * 6 and sorted(p.name for p in cache.iterdir()) == ["Epilepsy", "Other"]
