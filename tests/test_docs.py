"The site builds from the committed files, loads nothing from outside, and has no broken link. So does the tour."
import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest

pytest.importorskip("sphinx", reason="sphinx is not installed (pip install vsgrpo[docs])")
from browser import CHROMIUM, Browser

from vsgrpo.files import read_json

BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: pages are not opened")

# JavaScript: what is wrong with the boxes of a page's column; every collapsed part is opened first
FAULTS = """(() => {
  const column = document.querySelector('.bd-article')
  if (!column) return []
  document.querySelectorAll('details').forEach(d => d.open = true)
  const edge = column.getBoundingClientRect()
  const inside = box => box.left >= edge.left - 1 && box.right <= edge.right + 1
  const overflow = e => getComputedStyle(e).overflowX
  const scrolls = e => ['auto', 'scroll'].includes(overflow(e))
  const name = e => e.tagName + ' ' + e.textContent.trim().slice(0, 60)
  const faults = []
  for (const pre of column.querySelectorAll('pre')) {
    if (!pre.offsetParent) continue
    if (!inside(pre.getBoundingClientRect())) faults.push('wider than the column: ' + name(pre))
    if (getComputedStyle(pre).whiteSpace != 'pre') faults.push('lines wrap: ' + name(pre))
    if (pre.scrollWidth > pre.clientWidth + 1 && !scrolls(pre)) faults.push('does not scroll: ' + name(pre))
  }
  for (const table of column.querySelectorAll('table')) {
    if (!table.offsetParent) continue
    const box = table.getBoundingClientRect()
    let holder = table
    for (; holder != column && !scrolls(holder); holder = holder.parentElement) {
      const cut = ['hidden', 'clip'].includes(overflow(holder))
      if (cut && holder.getBoundingClientRect().right < box.right - 1) faults.push('cut off: ' + name(table))
    }
    const shown = holder == column ? box : holder.getBoundingClientRect()
    if (!inside(shown)) faults.push('wider than the column: ' + name(table))
  }
  return faults
})()"""

def outside(requests):
    "Requests that leave the page's own files."
    return [url for url in requests if not url.startswith(("file:", "data:", "blob:", "about:"))]

def load_script(root, name):
    "A script of docs/ as a module."
    spec = importlib.util.spec_from_file_location(name, root/"docs"/f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

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
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open(site, width):
    """No script fails, no other host is contacted, no page is wider than a phone, code and tables stay in the column.

    Of the library's pages, which one function writes, every tenth is opened. SHOTS=FOLDER keeps pictures."""
    shots, library = os.environ.get("SHOTS"), sorted((site/"api").glob("*.html"))
    left_out = set(library) - set(library[::10])
    with Browser() as b:
        b.size(width, 900)
        for path in sorted(p for p in site.rglob("*.html") if "_static" not in p.parts and p not in left_out):
            where = path.relative_to(site)
            b.errors.clear()
            b.open(path.as_uri())
            assert not b.errors, f"{where} at {width}: {b.errors[:2]}"
            assert b.js("document.documentElement.scrollWidth") <= width + 2, f"{where} is wider than {width}"
            faults = b.js(FAULTS)
            assert not faults, f"{where} at {width}: {faults[:3]}"
            if shots: Path(shots, f"{'-'.join(where.with_suffix('').parts)}-{width}.png").write_bytes(b.shot())
        assert not outside(b.requests)

WIDE = "x" * 400
MADE = { # a part of a page, and the fault that is found in it
    f"<pre style='white-space: pre; overflow-x: auto'>{WIDE}</pre>": None,
    f"<pre style='white-space: pre; overflow-x: auto; width: 900px'>{WIDE}</pre>": "wider than the column",
    f"<pre style='white-space: pre-wrap; overflow-wrap: anywhere'>{WIDE}</pre>": "lines wrap",
    f"<pre style='white-space: pre'>{WIDE}</pre>": "does not scroll",
    f"<div style='overflow-x: auto'><table><tr><td>{WIDE}</table></div>": None,
    f"<table><tr><td>{WIDE}</table>": "wider than the column",
    f"<div style='overflow-x: auto; width: 900px'><table><tr><td>{WIDE}</table></div>": "wider than the column",
    f"<div style='overflow: auto'><div style='overflow: hidden'><table><tr><td>{WIDE}</table></div></div>": "cut off",
    f"<details><summary>more</summary><pre>{WIDE}</pre></details>": "does not scroll"}

@BROWSER
def test_the_check_of_boxes_can_fail(tmp_path):
    with Browser(600, 800) as b:
        for i, (part, fault) in enumerate(MADE.items()):
            page = tmp_path/f"{i}.html"
            page.write_text(f"<!doctype html><article class=bd-article style='width: 500px'>{part}</article>", "utf-8")
            b.open(page.as_uri())
            found = b.js(FAULTS)
            if fault is None: assert found == [], part[:80]
            else: assert [f.split(":")[0] for f in found] == [fault], part[:80]

@BROWSER
def test_code_can_be_copied(site):
    "A button in each code block, none at printed text; a line of 90 characters does not scroll at 1280 px."
    page = next(p for p in sorted((site/"nbs").glob("20_*.html")))
    with Browser() as b:
        b.open(page.as_uri())
        b.wait("document.querySelectorAll('.cell_input button.copybtn').length > 5")
        assert b.js("document.querySelectorAll('.cell_output button.copybtn').length") == 0
        b.js("window.pre = document.querySelector('.cell_input:not(details *) pre'); pre.textContent = 'x'.repeat(90)")
        assert b.js("pre.clientWidth > 0 && pre.scrollWidth <= pre.clientWidth")
        assert not b.errors

def test_a_parameters_cell_becomes_a_table(root, tmp_path):
    "Name, default and comment of each, in place of the code; cells tagged hide-input are collapsed."
    build = load_script(root, "build")
    source = ('scale: str = "a|b"   # smoke | default\nsteps: int = None  # optimiser steps <n>;\n'
              "                   # None: by `scale`\nlr = 1e-4\n# a remark\nseed: int = 0")
    assert build.parameter_rows(source) == [
        ("scale", '"a|b"', "smoke | default"), ("steps", "None", "optimiser steps <n>; None: by `scale`"),
        ("lr", "1e-4", ""), ("seed", "0", "")]
    new = nbformat.v4
    nb = new.new_notebook(cells=[
        new.new_markdown_cell("# A title\n\n[a file](../vsgrpo/x.py), [a page](../docs/data.md#top)"),
        new.new_code_cell(source, metadata={"tags": ["parameters"]}),
        new.new_code_cell("secret = 1", metadata={"tags": ["hide-input", "other"]}),
        new.new_code_cell("secret = 2", metadata={"tags": ["hide-input"]}), new.new_code_cell("shown = 1")])
    (tmp_path/"nbs").mkdir()
    nbformat.write(nb, tmp_path/"50_made.ipynb")
    assert build.stage_notebook(tmp_path/"50_made.ipynb", tmp_path) == "A title"
    cells = nbformat.read(tmp_path/"nbs"/"50_made.ipynb", 4).cells
    assert [c.metadata.get("tags") for c in cells] == [None, None, ["hide-input"], None]
    assert cells[2].source == "secret = 1\n\nsecret = 2"       # cells that show nothing share a fold
    assert cells[0].source == "# A title\n\na file, [a page](../data.md#top)"
    table = cells[1].source
    assert table.count("<tr>") == 5 and "<code>scale</code></td><td><code>&quot;a|b&quot;</code></td>" in table
    assert "<td>optimiser steps &lt;n&gt;; None: by <code>scale</code></td>" in table
    build.stage_notebook(tmp_path/"50_made.ipynb", tmp_path, "https://git.example/us/it", "main")
    linked = nbformat.read(tmp_path/"nbs"/"50_made.ipynb", 4).cells[0].source
    assert "[a file](https://git.example/us/it/blob/main/vsgrpo/x.py)" in linked

def test_no_line_of_prose_is_a_comment(root):
    "A line that begins with a percent sign is a comment to the site and vanishes."
    texts = {path.name: path.read_text("utf-8") for path in [*(root/"docs").glob("*.md"), root/"README.md"]}
    for path in (root/"nbs").glob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        texts[path.name] = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    for name, text in texts.items():
        lost = re.search(r"^\s*%\s.*$", text, re.M)
        assert not lost, f"{name}: {lost[0].strip()}"

def test_the_site_links_to_a_repository_only_if_there_is_one(site, root, tmp_path):
    "`git_url` of settings.ini; empty in what is committed as long as nobody has registered one."
    build = load_script(root, "build")
    url, _ = build.repository()
    (tmp_path/"settings.ini").write_text("[DEFAULT]\ngit_url = https://git.example/us/it/\nbranch = dev\n")
    assert build.repository(tmp_path) == ("https://git.example/us/it", "dev")
    assert bool(url) == ("source-repository-button" in (site/"index.html").read_text("utf-8"))

# ---- what the notebooks printed

NUMBER = re.compile(r"[-+−]?(\d[\d,]*(\.\d+)?([eE][-+]?\d+)?%?|nan|NaN)$")

def number_ends(line):
    "Columns at which numbers end that stand two or more spaces behind what is left of them."
    fields = re.finditer(r"\S+(?: \S+)*", line)
    return {field.end() for field in fields if NUMBER.match(field[0]) and line[:field.start()].endswith("  ")}

def aligned_lines(text):
    "The first two neighbouring lines of a text that look like a printed data frame: numbers below numbers."
    lines = [line.rstrip() for line in text.splitlines()]
    return next(((a, b) for a, b in zip(lines, lines[1:]) if number_ends(a) & number_ends(b)), None)

def printed_texts(cell):
    "Texts that the page shows of a cell's outputs: streams, and results that have no other form."
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.output_type == "stream": yield output.text
        elif set(data) == {"text/plain"}: yield data["text/plain"]

def test_the_check_of_printed_tables_can_fail():
    import pandas as pd
    frame = pd.DataFrame({"base": [30.6, 2.], "trained": [41.2, float("nan")]}, index=["counting", "room size"])
    assert aligned_lines(frame.to_string()) and aligned_lines(frame.base.to_string())
    assert aligned_lines("question  score  n\nroom       12.0  3\nobject      8.0  14")
    for fine in ("step 1 of 20, reward 0.31\nstep 2 of 20, reward 0.35",
                 "Versions\n  torch    2.13.0\n  trl      1.16.0", "alone    3.0", "two words  3\nother  4444"):
        assert not aligned_lines(fine), fine

@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1]/"nbs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_table_is_printed_as_text(path):
    "Tables are shown by `Table` of 07a_display."
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    found = {cell.id: lines for cell in cells for text in printed_texts(cell) if (lines := aligned_lines(text))}
    assert not found, f"{path.name}: {json.dumps(found, ensure_ascii=False)[:600]}"

@BROWSER
def test_plots_draw(site):
    "A plot of the site can be turned."
    page = next(p for p in sorted((site/"nbs").glob("*.html")) if "Plotly.newPlot" in p.read_text("utf-8"))
    with Browser() as b:
        b.open(page.as_uri())
        b.wait("document.querySelectorAll('.plot .main-svg').length > 0")
        assert not b.errors

def test_the_tour_says_that_answers_are_the_same(root):
    "Counted over the rows that are shown and over all held-out questions; if answers differ, no warning."
    from vsgrpo.evaluation.vsibench import Question
    tour = load_script(root, "tour")
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

def test_the_tour_draws_a_right_and_a_wrong_answer(root):
    "By seed, from all that are right and wrong; the room has both, and each question stands on the page once."
    from vsgrpo.evaluation.vsibench import Question
    tour = load_script(root, "tour")
    questions = [Question(f"q{i:02}", "d", "s", "object_counting", "?", "4", None, provenance={}) for i in range(20)]
    answers = {q.id: "4" if i < 10 else "400" for i, q in enumerate(questions)}
    drawn = {seed: tour.draw_right_and_wrong(questions, answers, seed) for seed in range(20)}
    assert all(int(right.id[1:]) < 10 <= int(wrong.id[1:]) for right, wrong in drawn.values())
    assert len({right.id for right, _ in drawn.values()}) > 4 and drawn[0] == tour.draw_right_and_wrong(
        questions[::-1], answers, 0)
    shown = tour.chosen_questions(questions, answers)
    assert [bool(label) for _, label in shown[:2]] == [True, True] and "right" in shown[0][1]
    assert len({q.id for q, _ in shown}) == len(shown)
    assert tour.draw_right_and_wrong(questions, dict.fromkeys(answers, "4"))[1] is None

def test_the_film_of_the_tour_starts_at_its_first_full_frame(root):
    "The camera of a generated room glides in for the first half of its film."
    from vsgrpo.data.camera_path import camera_path
    from vsgrpo.data.room_rendering import room_scene
    from vsgrpo.data.rooms import make_room
    tour = load_script(root, "tour")
    for seed in range(3):
        room = make_room(seed, "overview")
        assert tour.first_full_frame(room_scene(room, *camera_path(room))) == room.preset.n_frames//2

def test_a_tour_needs_generated_rooms(root):
    "Questions about other films cannot be drawn in a room."
    tour = load_script(root, "tour")
    from vsgrpo.evaluation.vsibench import Question
    with pytest.raises(SystemExit, match="tested on generated rooms"):
        tour.candidate_rooms([Question(1, "own", "kitchen", "number", "How many?", "4")], {1: "4"})

@BROWSER
def test_tour(root, tmp_path):
    "The tour of a trained model: one file, every question drawn, nothing loaded."
    runs = [p.parent for p in (root/"runs").glob("*/scores.csv") if (p.parent/"answers"/"trained.jsonl").is_file()]
    runs = [run for run in runs if (Path(read_json(run/"run.json")["settings"]["data"])/"generated").is_dir()]
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
        assert n >= 3 and len(drawn) >= n - 2 and not b.errors      # two directions between the same objects look alike
        assert b.js("document.querySelectorAll('.label').length") == 2
        b.wait("document.querySelector('video').readyState >= 1")
        assert b.js("(film => film.currentTime >= Number(film.dataset.start))(document.querySelector('video'))")
        assert b.js("document.querySelector('video').poster.startsWith('data:image/png')")
        assert b.js("document.querySelector('img').naturalWidth > 1000")
        assert b.js("document.getElementById('space').layout.scene.xaxis.range.length") == 2
        b.size(390, 900)
        b.wait("document.documentElement.scrollWidth <= 392")
        assert not outside(b.requests)
