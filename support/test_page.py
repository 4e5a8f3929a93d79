"""The page of a run: its numbers by hand; and in a real browser, where there is one."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import train
from metrics import ari
from support import page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# What a reader would do, at the end of the page; the outcome goes where --dump-dom shows it.
DRIVE = """<script>
addEventListener("load", () => {
  const masks = () => [...document.querySelectorAll("g.mask")].map(g => g.innerHTML).join("");
  const send = (element, value, type) => {
    element.value = value; element.dispatchEvent(new Event(type)); return masks().length; };
  const seen = {wide: document.documentElement.scrollWidth - innerWidth, masks: [],
    bold: document.querySelectorAll("body b").length, text: document.body.innerText.slice(0, 400),
    paths: document.querySelectorAll("path[d*=L]").length};
  epochs.forEach((told, i) => seen.masks.push([told, send(slider, i, "input")]));
  const before = $("clusters").innerHTML;
  send(pick, pick.options.length - 1 - pick.value, "change");
  seen.other = $("clusters").innerHTML !== before;
  parent.postMessage("seen" + JSON.stringify(seen), "*");
});</script>"""


def test_a_trace_is_thinned_by_hand(monkeypatch):
    monkeypatch.setattr(page, "STEPS", 4)
    X = np.arange(2 * 7 * 1.0).reshape(2, 7, 1)
    X[0, 5:] = np.nan
    look, trace = page.Look(X), None
    assert look.steps.tolist() == [0, 2, 4, 6]
    mask = np.ones(X.shape, bool)
    mask[0, [0, 1, 2]] = mask[0, 5:] = mask[1, 4] = False
    for epoch in range(1, 100):
        trace = look.add(trace, epoch, mask if epoch < 99 else ~mask)
    assert len(trace) == 40 and [*trace][0] == 1 and [*trace][-1] == 99
    assert set(np.diff([*trace])) <= {1, 2, 3, 4}
    found = look.arrays(trace, np.array([1, 1]), mask)
    hidden = found["trace"][:, :, :, 0].astype(int)
    assert hidden.shape == (41, 2, 4) and found["trace_epochs"].tolist() == [*trace, -1]
    assert hidden[0].tolist() == hidden[-1].tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]
    assert hidden[-2].tolist() == [[0, 0, 1, 0], [1, 1, 0, 1]]  # a missing value is never hidden
    assert np.isnan(found["means"][0]).all()  # no member
    assert found["means"][1, :, 0].tolist() == [3.5, 5.5, 7.5, 13]
    assert np.array_equal(found["series"][0, :, 0], [0, 2, 4, np.nan], equal_nan=True)
    assert look.arrays(None, np.array([0, 1]), None).keys() == {*found} - {"trace", "trace_epochs"}


def test_importance_and_plane():
    S = np.zeros((2, 4, 3))
    S[:, :, 0], S[0, :, 2], S[0, 0, 2] = 0.5, [0.1, 0.9, 0.2, 0.8], 0
    found = page.importance_by_time(S, np.arange(4))
    assert found["variates"] == [0, 1, 2] and found["values"][2] == [None, 0.9, 0.2, 0.8]
    assert page.importance_by_time(None, None) is page.importance_by_time(S * 0, None) is None
    line = np.outer([-2.0, -1, 0, 3], [0.6, 0.8])
    assert np.allclose(np.abs(page.plane(line)[:, 0]), [2, 1, 0, 3])
    assert page.plane(np.ones((4, 1))).tolist() == [[0, 0]] * 4


def one_run(folder, name="Own", N=12, T=30, D=2, labels=None, holes=False, options=()):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, T, D)).astype(np.float32)
    if holes:
        X[::2, T // 2 :] = X[1, 3:9, 0] = np.nan
    y = {} if labels is None else {"y": np.array(labels)[np.arange(N) % len(labels)]}
    np.savez(folder / f"{name}.npz", X=X, **y)
    command = ["--data", str(folder / f"{name}.npz"), "--out", str(folder / "run"), "--quiet"]
    command += ["--clusters", "3", "--epochs", "3", "--seeds"]
    quick = [] if "--method" in options else ["--width", "8", "--starts", "1", "--init", "2"]
    assert train.main([*command, *(options or ["0", "1", "--epsilon", "0.4"]), *quick]) == 0
    return folder / "run"


def look_at(path, width):
    """Open the page in a browser; what DRIVE saw there."""
    text = path.read_text(encoding="utf-8")
    elsewhere = r"(?:src|href)=(?![\"']?data:)|@import|url\("
    assert not re.findall(elsewhere, text)
    framed = f'<iframe src="inner.html" style="border:0;width:{width}px;height:900px"></iframe>'
    outer = "<script>addEventListener('message', e => { document.title = e.data; });</script>"
    path.with_name("inner.html").write_text(text + DRIVE, encoding="utf-8")
    path.with_name("outer.html").write_text(outer + framed, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    flags += "--disable-background-networking --disable-component-update --enable-logging=stderr "
    flags += "--virtual-time-budget=4000 --window-size=1700,1000 "
    flags += f"--user-data-dir={path.with_name('browser')} --dump-dom"
    command = [BROWSER, *flags.split(), path.with_name("outer.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<title>seen(.*)</title>", done.stdout, re.DOTALL)
    assert found, done.stdout[:2000]
    return json.loads(html.unescape(found[1]))


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no browser: Debian's package chromium has one")
@pytest.mark.parametrize("width", [400, 1600])
def test_a_reader_moves_the_slider(tmp_path, width):
    folder = one_run(tmp_path, labels=["<b>x</b>", "=y"], holes=True)
    seen = look_at(folder / "report.html", width)
    assert seen["wide"] <= 0, "it scrolls sideways"
    assert [told for told, _ in seen["masks"]] == ["epoch 1", "epoch 2", "epoch 3", "the end"]
    assert len({length for _, length in seen["masks"]}) > 1, "the mask never evolves"
    assert seen["other"] and seen["bold"] == 0 and seen["paths"] > 8 and "looks" in seen["text"]


KINDS = {
    "wide": dict(D=900, T=8),
    "long": dict(T=20_000, N=4, D=1, options=["5", "--max-keys", "16"]),
    "no mask": dict(options=["5", "--mask", "none"]),
    "untrained": dict(options=["5", "--epochs", "0"]),
    "related": dict(options=["5", "--method", "simmtm"], T=40),
}


@pytest.mark.parametrize("kind", ["wide", "no mask", "untrained", "related"])
def test_pages_of_all_kinds(tmp_path, kind):
    folder = one_run(tmp_path, **{"options": ["0"], **KINDS[kind]})
    text = (folder / "report.html").read_text(encoding="utf-8")
    told = json.loads(re.search("const D = (.*);\n", text)[1])
    frames = {"related": [], "untrained": [-1]}.get(kind, [1, 2, 3, -1])
    assert told["epochs"] == frames and len(told["variates"]) == (8 if kind == "wide" else 2)
    assert (told["importance"] is None) == (kind != "wide")
    assert sum(told["sizes"]) == 12 == len(told["points"]) and told["pairs"] is None


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no browser: Debian's package chromium has one")
@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_all_kinds_in_a_browser(tmp_path, kind):
    folder = one_run(tmp_path, **{"options": ["0"], **KINDS[kind]})
    assert (folder / "report.html").stat().st_size < 3e6
    seen = look_at(folder / "report.html", 900)
    assert seen["wide"] <= 0 and seen["paths"] > 0 and "1 seed," in seen["text"]


def test_what_the_page_is_told(tmp_path):
    folder = one_run(tmp_path, labels=["<b>", "c"])
    text = (folder / "report.html").read_text(encoding="utf-8")
    told = json.loads(re.search("const D = (.*);\n", text)[1])
    assert '"0 \\u003cb>"' in text and "<b>" not in text  # a label is no HTML
    found = [dict(np.load(folder / f"seed_{s}.npz")) for s in (0, 1)]
    labels, E = (found[told["seed"]][name] for name in ("labels", "embedding"))
    apart = page.plain(ari(*(f["labels"] for f in found)))
    assert told["agree"] == [[1, apart], [apart, 1]] and told["seeds"] == [0, 1]
    X = np.load(tmp_path / "Own.npz")["X"]
    names = [f"{n} {'c' if n % 2 else '<b>'}" for n in range(12)]
    for one in told["clusters"]:
        rows = np.flatnonzero(labels == one["cluster"])
        away = np.linalg.norm(E[rows] - E[rows].mean(0), axis=1)
        near = rows[np.argsort(away, kind="stable")[:3]]
        assert [m["name"] for m in one["members"]] == [names[n] for n in near]
        assert one["members"][0]["values"] == page.plain(X[near[0]].T) and one["size"] == len(rows)
        assert one["mean"] == page.plain(X[rows].mean(0, np.float64).T)


def test_the_page_alone(tmp_path, capsys):
    folder = one_run(tmp_path)
    first = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    page.main([str(folder)])
    assert (folder / "report.html").read_bytes() == first
    (folder / "seed_0.npz").write_bytes(b"x")
    for given in (tmp_path, folder):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            page.main([str(given)])
        assert len(capsys.readouterr().err.splitlines()) == 1
