"""Downloads from a misbehaving server on loopback: `python -m pytest support/test_download.py`."""

import hashlib
import http.server
import json
import os
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import archive
from support.conftest import put, refused
from uea_loader import load

TS = "@problemName t\n@classLabel true b a\n@data\n"
TRAIN, TEST = (TS + "1,2:a\n").encode(), (TS + "3,4:b\n5,6:a\n").encode()


@pytest.fixture(autouse=True)
def kept(cache, monkeypatch):
    """Something in the cache that must survive."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    put(cache / "Other" / "keep.txt", "kept")


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_records():
    known = {"BasicMotions": 11206179, "NATOPS": 11206248, "RacketSports": 11206263}
    assert len(archive.RECORDS) == 133 and known.items() <= archive.RECORDS.items()
    assert archive.LISTING.startswith("https://")


def file_entry(name, content, url):
    md5 = hashlib.md5(content).hexdigest()
    return {"key": name, "size": len(content), "checksum": f"md5:{md5}", "links": {"self": url}}


@pytest.fixture
def serve(monkeypatch):
    """serve(answers): {path: bytes, or a function of the request}; returns the paths asked for."""
    asked, answers = [], {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["User-Agent"]))
            answer = answers.get(self.path)
            try:
                if callable(answer):
                    answer(self)
                elif answer is None:
                    self.send_error(404, "gone")
                else:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(answer)
            except OSError:
                pass  # the client has had enough

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(archive, "LISTING", root + "/{record}")
    monkeypatch.setattr(archive, "HANDLERS", [*archive.HANDLERS, urllib.request.HTTPHandler])
    files = [
        file_entry("Epilepsy_TEST.ts", TEST, root + "/test"),
        file_entry("Epilepsy_TRAIN.ts", TRAIN, root + "/train"),
        file_entry("Epilepsy.txt", b"", root + "/not-needed"),
    ]

    def start(changed=(), **entry):
        """The good answers, but some changed; `entry` changes the listing of the training split."""
        listing = json.dumps({"files": [files[0], files[1] | entry, files[2]]}).encode()
        answers.update({"/11206204": listing, "/test": TEST, "/train": TRAIN} | dict(changed))
        return asked

    yield start
    server.shutdown()
    server.server_close()


def test_download_once_then_offline(serve, cache, monkeypatch):
    asked, before = serve(), tree(cache)
    d = load("Epilepsy")
    assert d.X.tolist() == [[[3], [4]], [[5], [6]]] and d.y.tolist() == [0, 1]
    new = {"Epilepsy/Epilepsy_TEST.ts": TEST, "Epilepsy/Epilepsy_TRAIN.ts": TRAIN}
    assert tree(cache) == before | new
    assert load("Epilepsy", "all").X.shape == (3, 2, 1) and len(asked) == 3
    assert {agent for _, agent in asked} == {"emtc-educational/1"}
    (cache / "Epilepsy" / "Epilepsy_TEST.ts").unlink()  # lost: fetched again
    assert load("Epilepsy").y.tolist() == [0, 1] and len(asked) == 6 and tree(cache) == before | new
    monkeypatch.setenv("EMTC_DATA", str(cache / "none" / "yet"))
    assert load("Epilepsy").y.tolist() == [0, 1] and tree(cache / "none" / "yet") == new


def stall(request):
    request.send_response(200)
    request.end_headers()
    request.wfile.write(TRAIN[:5])
    request.wfile.flush()
    time.sleep(2)


def trickle(request):
    for _ in range(60):  # headers that never end, each byte well within the silence that is allowed
        request.wfile.write(b"X")
        request.wfile.flush()
        time.sleep(0.05)


def redirect(to):
    def answer(request):
        request.send_response(302)
        request.send_header("Location", to(int(request.path.partition("?")[2] or 0) + 1))
        request.end_headers()

    return answer


LIST = "/11206204"
CHAIN = {
    f"/train{q}": redirect(lambda n: f"/train?{n}") for q in ["", *(f"?{i}" for i in range(30))]
}
ATTACKS = {  # what the server answers, what the listing says of the training split, the message
    "404": ({"/train": None}, {}, "404: gone"),
    "short": ({"/train": TRAIN[:-1]}, {}, f"has {len(TRAIN)} bytes, and the server sent"),
    "long": ({"/train": TRAIN + b"x"}, {}, "more than it announced"),
    "wrong bytes": ({"/train": TRAIN[::-1]}, {}, "not the file that the record names"),
    "no md5": ({}, {"checksum": "sha1:abc"}, "not the file that the record names"),
    "html": ({LIST: b"<!DOCTYPE html><html>Sorry</html>"}, {}, "no list of files"),
    "no files": ({LIST: b'{"id": 11206204}'}, {}, "no list of files"),
    "odd files": ({LIST: b'{"files": {"key": 1}}'}, {}, "no list of files"),
    "deep": ({LIST: b"[" * 200_000}, {}, "no list of files"),
    "large list": ({LIST: b"[" * 300_000}, {}, "more than it announced"),
    "no size": ({}, {"size": "many"}, "no list of files"),
    "empty": ({"/train": b""}, {"size": 0}, "has 0 bytes"),
    "huge": ({}, {"size": 10**12}, "at most 8589934592 are taken"),
    "split missing": ({}, {"key": "Epilepsy_TRAIN.txt"}, "no file Epilepsy_TRAIN.ts"),
    "own disk": ({}, {"links": {"self": "file:///etc/passwd"}}, "unknown url type: file"),
    "elsewhere": ({"/train": redirect(lambda n: "ftp://127.0.0.1/x")}, {}, "unknown url type: ftp"),
    "loop": ({"/train": redirect(lambda n: "/train")}, {}, "302"),
    "chain": (CHAIN, {}, "302"),
    "stall": ({"/train": stall}, {}, "timed out"),
    "trickle": ({"/train": trickle}, {}, "TimeoutError after"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_one_line_and_leaves_the_cache_as_it_was(
    attack, serve, tmp_path, monkeypatch
):
    changed, entry, words = ATTACKS[attack]
    monkeypatch.setattr(archive, "STALL_S", 0.5)
    monkeypatch.setattr(archive, "TOTAL_S", 1.2)
    monkeypatch.setattr(archive, "MAX_LISTING", 250_000)
    asked, before = serve(changed, **entry), tree(tmp_path)
    start = time.perf_counter()
    refused("Epilepsy", "cannot download Epilepsy: ", words, "by hand: ", str(tmp_path / "cache"))
    assert time.perf_counter() - start < 10 and len(asked) < 16
    assert tree(tmp_path) == before and os.listdir(tmp_path / "cache") == ["Other"]


def test_no_server_and_no_http(serve, monkeypatch):
    asked, both = serve(), archive.HANDLERS
    monkeypatch.setattr(archive, "HANDLERS", both[:-1])  # as they are when no test is run
    refused("Epilepsy", "unknown url type: http")
    assert asked == []
    monkeypatch.setattr(archive, "HANDLERS", both)
    monkeypatch.setattr(archive, "LISTING", "http://127.0.0.1:9/{record}")  # nobody listens there
    refused("Epilepsy", "refused", "by hand")
    monkeypatch.setenv("EMTC_DATA", os.path.abspath("cache/Other/keep.txt"))
    refused("Epilepsy", "by hand")  # a cache folder that cannot be made


def test_two_downloads_at_once(serve, cache):
    serve()
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: load("Epilepsy").X.shape, range(4))] == [(2, 2, 1)] * 4
    assert sorted(p.name for p in cache.iterdir()) == ["Epilepsy", "Other"]
