"The site builds from what is committed, loads nothing from outside, and has no broken link. The tour as well."
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

pytest.importorskip("sphinx", reason="sphinx is not installed (pip install vsgrpo[docs])")
from browser import CHROMIUM, Browser

BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: pages are not opened")

def outside(requests):
    "Requests that leave the page's own files."
    return [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))]

@pytest.fixture(scope="module")
def site(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("site")/"out"
    done = subprocess.run([sys.executable, str(root/"docs"/"build.py"), str(folder)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder

class Page(HTMLParser):
    "Links, pictures, and the text outside of code."
    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.pictures, self.ids, self.text, self.code, self._in = [], [], [], set(), [], [], []
        self.feed(path.read_text("utf-8"))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if "id" in a: self.ids.add(a["id"])
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if tag in ("script", "img", "source", "video", "iframe") and a.get("src"): self.loads.append(a["src"])
        if tag == "link" and a.get("href") and a.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loads.append(a["href"])
        if tag == "img": self.pictures.append(a)
        if tag in ("pre", "code", "script", "style", "math"): self._in.append(tag)
    def handle_endtag(self, tag):
        if self._in and self._in[-1] == tag: self._in.pop()
    def handle_data(self, data):
        if "script" not in self._in and "style" not in self._in: (self.code if self._in else self.text).append(data)

def test_pages(site):
    pages = {p: Page(p) for p in site.rglob("*.html") if "_static" not in p.parts}
    assert len(pages) >= 60
    for path, page in pages.items():
        where = path.relative_to(site)
        for link in page.loads: assert not urlparse(link).scheme or link.startswith("data:"), f"{where} loads {link}"
        for link in page.links:
            to = urlparse(link)
            if to.scheme: continue
            target = (path.parent/unquote(to.path)).resolve() if to.path else path
            assert target.exists(), f"{where}: broken link {link}"
            if to.fragment and target in pages:
                assert unquote(to.fragment) in pages[target].ids, f"{where}: no such place {link}"
        for picture in page.pictures:
            assert picture.get("alt"), f"{where}: a picture without words: {str(picture)[:80]}"
        text = "\n".join(page.text)
        tex = re.search(r".{0,30}(\\(frac|sum|log|text|pi_)|\$\$).{0,30}", text)
        assert not tex, f"{where}: raw TeX: {tex[0]}"
        lines = "\n".join([*page.code, text]).splitlines()
        directives = [line for line in lines if line.strip().startswith("#|")]
        assert not directives, f"{where}: a directive of nbdev: {directives[0]}"

@BROWSER
def test_pages_open(site):
    "No script fails, nothing is asked of another host, nothing is wider than a phone. SHOTS=FOLDER keeps pictures."
    shots = os.environ.get("SHOTS")
    with Browser() as b:
        for path in sorted(p for p in site.rglob("*.html") if "_static" not in p.parts):
            where = path.relative_to(site)
            for width in (1280, 390):
                b.errors.clear()
                b.size(width, 900)
                b.open(path.as_uri())
                assert not b.errors, f"{where} at {width}: {b.errors[:2]}"
                assert b.js("document.documentElement.scrollWidth") <= width + 2, f"{where} is wider than {width}"
                if shots: Path(shots, f"{'-'.join(where.with_suffix('').parts)}-{width}.png").write_bytes(b.shot())
        assert not outside(b.requests)

@BROWSER
def test_plots_draw(site):
    "A plot of the site is there to be turned."
    page = next(p for p in sorted((site/"nbs").glob("*.html")) if "Plotly.newPlot" in p.read_text("utf-8"))
    with Browser() as b:
        b.open(page.as_uri())
        b.wait("document.querySelectorAll('.plot .main-svg').length > 0")
        assert not b.errors

def test_the_tour_says_that_answers_are_the_same(root):
    "Counted over the rows that are shown and over all held-out questions; if answers differ, no warning."
    from vsgrpo.evaluation.vsibench import Question
    spec = importlib.util.spec_from_file_location("tour", root/"docs"/"tour.py")
    tour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tour)
    turn, sides = "object_rel_direction_easy", ["A. left", "B. right"]
    questions = [Question(f"q{i}", "d", f"s{i}", turn, "?", "AB"[i % 2], sides) for i in range(20)]
    same = {q.id: "B" if q.id == "q1" else "A" for q in questions}
    right = {q.id: q.ground_truth for q in questions}
    notes = tour.answer_notes(questions[:4], questions, {"Before": right, "After": same}, "official")
    assert notes == ['After training 3 of the 4 choice rows read "A": over all held-out rooms the trained model '
                     'answers "A" to 19 of 20 choice questions; that is right for 10.',
                     'After gives one answer to 90 % or more of the questions in object_rel_direction ("A" 95 %, '
                     'truth 50 %).']
    notes = tour.answer_notes(questions[:4], questions, {"Before": same, "After": right}, "official")
    assert '2 of the 4 choice rows read "A"' in notes[0] and "10 of 20" in notes[0]
    assert [n.split()[0] for n in notes[1:]] == ["Before"]

@BROWSER
def test_tour(root, tmp_path):
    "The tour of a trained model: one file, every question drawn, nothing loaded."
    runs = [p.parent for p in (root/"runs").glob("*/scores.csv") if (p.parent/"answers"/"trained.jsonl").is_file()]
    if not runs:
        pytest.skip("no finished run under runs/: there is no training to tell of (the chapters leave one when `make "
                    "test` comes here)")
    newest = max(runs, key=lambda folder: folder.stat().st_mtime)
    done = subprocess.run([sys.executable, str(root/"docs"/"tour.py"), str(newest), str(tmp_path/"tour.html")],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1500:]
    with Browser() as b:
        b.open((tmp_path/"tour.html").as_uri())
        b.wait("document.querySelector('#space .main-svg') != null")
        n = b.js("document.querySelectorAll('tr.ask').length")
        drawn = set()
        for i in range(n):
            b.js(f"document.querySelectorAll('tr.ask')[{i}].click()")
            assert b.js(f"document.querySelectorAll('tr.ask')[{i}].className.includes('on')")
            drawn.add(b.js("JSON.stringify(document.getElementById('space').data.slice(1).map(t => [t.x, t.text]))"))
        assert n >= 3 and len(drawn) == n and not b.errors
        assert b.js("document.querySelector('video').readyState >= 1")
        b.size(390, 900)
        b.wait("document.documentElement.scrollWidth <= 392")
        assert not outside(b.requests)
