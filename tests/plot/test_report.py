"""The page of a run: one file that needs nothing else, whose numbers are those of the run."""

import base64
import gzip
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.optimize import brentq

from acqdesign.plot import read_run, report, write_run
from acqdesign.plot.images import psf_numbers
from acqdesign.plot.pages import command_line

from ._folders import arrays, folder


def unpacked(text):
    return gzip.decompress(base64.b64decode(text))


def data_of(page):
    """What a page draws."""
    return json.loads(unpacked(re.search(r'id="data">([^<]*)<', page)[1]))


class Tags(HTMLParser):
    """Tags and words of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_holds_what_the_run_found_and_asks_for_nothing_outside(tmp_path):
    held = arrays()
    page = report(read_run(folder(tmp_path / "run", held)))
    assert len(page) < 6e6
    seen = Tags(page)
    assert not [tag for tag, given in seen.tags if {"src", "href"} & set(given) or tag == "link"]
    assert b"plotly.js" in unpacked(re.search(r'id="library">([^<]*)<', page)[1])[:200]
    data = data_of(page)
    asked = {given.get("id") for _, given in seen.tags}
    assert set(data["plots"]) <= asked
    assert {"plane-of-lines", "space", "flips", "signals", "bounds", "psf-learned", "side-lobes", "loss"} <= asked
    # k-space in the order in which it is played.
    plane, space = data["kspace"]
    np.testing.assert_allclose(np.stack([plane["x"], plane["y"]], 1), held["points"], atol=1e-4)
    assert plane["colour"] == ["marker.color", (held["echo"] + 1).tolist()]
    assert len(space["x"]) == space["per"] * space["readouts"] == 3 * 24
    # Images in eight bits, errors on their own scale.
    images = data["images"]
    truth, _, learned, _, error = images["volumes"]
    values = np.frombuffer(unpacked(truth["values"]), np.uint8).reshape(images["shape"])
    np.testing.assert_allclose(values / 255 * truth["top"], held["truth"], atol=truth["top"] / 500)
    assert learned["caption"] == "learned, NRMSE 0.100"
    wrong = np.abs(np.abs(held["image.learned"]) - held["truth"])
    values = np.frombuffer(unpacked(error["values"]), np.uint8).reshape(images["shape"]) / 255 * error["top"]
    np.testing.assert_allclose(values, np.minimum(wrong, error["top"]), atol=error["top"] / 500)
    np.testing.assert_allclose(data["plots"]["flips"]["traces"][1]["y"], np.rad2deg(held["flips_rad"]), rtol=1e-4)
    for text in ("0.1000", "-66.7 %", "wm: σ(T2) / T2 [%]", "head.nii: matrix 3 x 8 x 10", "5.0 ms", "R = 3.33"):
        assert text in seen.words or text in " ".join(seen.words)


def test_what_a_file_says_is_never_part_of_the_page(tmp_path):
    """Names and options of others are text, even where they look like a page's own parts."""
    bad = "<script>alert(1)</script>{{data}}</script>"
    held = arrays() | {"tissues": np.array([bad, "gm"]), "bound_tissues": np.array(["wm", bad])}
    path = folder(tmp_path / "a<b>{{body}}", held, options={"phantom": [bad]}, given={"phantom": [bad], bad: 1})
    page = report(read_run(path))
    seen, plain = Tags(page), Tags(report(read_run(folder(tmp_path / "plain", arrays()))))
    assert [tag for tag, _ in seen.tags].count("script") == [tag for tag, _ in plain.tags].count("script")
    assert bad in " ".join(seen.words)
    assert data_of(page)["plots"]["signals"]["traces"][0]["name"] == f"{bad}, start"


def test_large_images_lose_planes_and_not_the_page(tmp_path, rng):
    held = arrays() | {"shape": np.array([96, 96, 96])}
    noise = rng.uniform(0, 1, (3, 96, 96, 96)).astype(np.float32)
    held |= dict(zip(("truth", "image.start", "image.learned"), noise, strict=True))
    page = report(read_run(folder(tmp_path / "run", held)))
    assert len(page) < 6e6
    images = data_of(page)["images"]
    assert images["every"] == 2
    values = np.frombuffer(unpacked(images["volumes"][0]["values"]), np.uint8).reshape(48, 96, 96)
    np.testing.assert_allclose(values / 255, noise[0][::2], atol=0.01)


@pytest.mark.parametrize("dims", [2, 3])
def test_other_trajectories_are_shown_readout_by_readout(dims, tmp_path, rng):
    held = {k: v for k, v in arrays().items() if k not in ("points", "start.points", "moves", "frames", "echo")}
    held["coordinates"] = rng.uniform(-0.5, 0.5, (7, 5, dims)).astype(np.float32)
    (view,) = data_of(report(read_run(folder(tmp_path / "run", held))))["kspace"]
    assert (view["per"], view["readouts"]) == (6, 7)
    np.testing.assert_allclose(np.reshape(view["x"], (7, 6))[:, :5].astype(float), held["coordinates"][..., 0], 1e-3)
    assert ("z" in view) == (dims == 3)


def test_a_run_says_how_to_ask_for_it_again():
    given = {"steps": 3, "shape": [1, 8, 8], "augment": True, "term": ["nrmse", "my file.py:T=2"], "rising": [[1, 3]]}
    line = command_line({"command": "learn_traj", "given": given})
    want = "python -m acqdesign.learn_traj --steps 3 --shape 1 8 8 --augment --term nrmse 'my file.py:T=2' --rising 1 3"
    assert line == want
    assert command_line({"command": None, "given": {}}) is None
    assert command_line({"command": "learn_traj"}) is None


def test_where_the_library_is_missing_the_page_alone_is(tmp_path, monkeypatch):
    from acqdesign.plot.pages import _library

    _library.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.warns(UserWarning, match=r"no report.html, as plotly is missing .* pip install plotly"):
        written = write_run(folder(tmp_path / "run", arrays()))
    assert "flips.png" in written
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("n", [24, 25])
def test_widths_and_side_lobes_are_those_of_the_sampled_square(n):
    """Dirichlet's kernel of as many samples, of all of k-space and of half; lobes in dB."""
    k = np.fft.fftshift(np.fft.fftfreq(n))
    for inner in (np.abs(k) < 0.5, np.abs(k) < 0.25):
        line = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(inner.astype(float))))
        count = inner.sum()
        half = brentq(lambda x, m=count: np.sin(np.pi * x * m / n) / (m * np.sin(np.pi * x / n)) - 0.5, 1e-3, n / count)
        found, _ = psf_numbers(np.outer(line, np.eye(n)[n // 2]))
        assert found[0] == pytest.approx(2 * half, rel=1e-4)
    lone = np.eye(n)[n // 2][:, None] * np.eye(n)[n // 2]
    lone[n // 2 + 4, n // 2] = 0.1
    assert psf_numbers(lone)[1] == pytest.approx(-20)
