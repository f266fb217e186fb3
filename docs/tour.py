"""Sixty seconds of vsGRPO in one HTML file that loads nothing: a generated room in 3D, its film, one question of each kind drawn in it, and what the tiny
model answered before and after training.

    python docs/tour.py [RUN] [OUT]    # RUN: a run folder of chapter 20; the newest finished one of the tiny model. OUT: runs/tour.html
"""
import json
import sys
from base64 import b64encode
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

CSS = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1c1e;--line:#d5d5da;--soft:#f0e6f5;--good:#1a7f37;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#17171a;--ink:#e6e6ea;--line:#3a3a40;--soft:#33263b;--good:#57d07a;--bad:#ff8a80}}
*{box-sizing:border-box}body{font:16px/1.45 system-ui,sans-serif;background:var(--paper);color:var(--ink);max-width:1200px;margin:0 auto;padding:0 12px 40px}
.two{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:16px}@media(max-width:800px){.two{grid-template-columns:minmax(0,1fr)}}
#space{height:460px;overflow:hidden;border:1px solid var(--line);border-radius:6px}video{width:100%;max-width:336px;image-rendering:pixelated;border-radius:6px}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{padding:6px 8px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
tr.ask{cursor:pointer}tr.on{background:var(--soft)}td.good{color:var(--good)}td.bad{color:var(--bad)}button{font:inherit;text-align:left;background:none;border:0;color:inherit;padding:0;cursor:pointer}small{opacity:.75}
"""
JS = """
const D = JSON.parse(document.getElementById('data').textContent), space = document.getElementById('space'), dark = matchMedia('(prefers-color-scheme: dark)')
let at = 0
function draw() {
  const axis = t => ({title: {text: t + ' (m)'}, gridcolor: dark.matches ? '#444' : '#ddd', zeroline: false}), k = space.clientWidth < 500 ? 1.6 : 1.1
  Plotly.react(space, [...D.scan.map(t => ({...t, opacity: .55})), ...D.marks[at]], {margin: {l: 0, r: 0, t: 0, b: 0}, paper_bgcolor: 'rgba(0,0,0,0)', font: {color: dark.matches ? '#ddd' : '#222'}, showlegend: false, uirevision: 1,
    scene: {aspectmode: 'data', camera: {eye: {x: .7*k, y: -1.1*k, z: 1.5*k}}, xaxis: axis('x'), yaxis: axis('y'), zaxis: axis('z')}}, {responsive: true, displaylogo: false})
}
function choose(i) { at = i; document.querySelectorAll('tr.ask').forEach((r, k) => r.classList.toggle('on', k == i)); draw() }
document.querySelectorAll('tr.ask').forEach((r, i) => r.onclick = () => choose(i))
dark.onchange = draw; choose(0)
"""


def newest_run():
    "The newest finished run of the tiny model in full length that answered about generated rooms."
    steps = lambda p: json.loads((p/"run.json").read_text("utf-8"))["settings"].get("steps", 0)
    found = sorted((p.parent for p in (ROOT/"runs").glob("grpo-tiny-vanilla-*/scores.csv") if (p.parent/"answers"/"trained.jsonl").is_file() and steps(p.parent) >= 50), key=lambda p: p.stat().st_mtime)
    if not found: sys.exit("no trained tiny model under runs/ yet: `make run` trains one in two minutes")
    return found[-1]


def richest_scene(questions):
    "The held-out room with most kinds of questions, and one question of each."
    by_scene = {}
    for q in questions:
        if q.provenance is not None: by_scene.setdefault(q.scene_name, {}).setdefault(q.question_type, q)
    name = max(sorted(by_scene), key=lambda n: len(by_scene[n]))
    return name, list(by_scene[name].values())


def answer_notes(shown, questions, answers, parser):
    """Sentences on answers that are (nearly) always the same: in the choice rows of the page, and over all questions.

    `answers` holds the predictions before and after training: name → {question id: text}, the trained model's last."""
    from collections import Counter

    from vsgrpo.evaluation.generate import answer_name, answer_warnings, arm_scores
    from vsgrpo.evaluation.vsibench import parse_answer
    scores, trained = arm_scores(answers, questions, parser), list(answers.values())[-1]
    choices = [q for q in questions if q.options]
    rows = [q for q in shown if q.options]
    read = lambda qs: Counter(answer_name(parse_answer(q, trained[q.id] or "", parser)) for q in qs)
    if not rows: return answer_warnings(scores)
    (top, n), everywhere = read(rows).most_common(1)[0], read(choices)
    right = sum(q.ground_truth == top for q in choices)
    note = f'After training {n} of the {len(rows)} choice rows read "{top}": over all held-out rooms the trained model '
    note += f'answers "{top}" to {everywhere[top]:,} of {len(choices):,} choice questions; that is right for {right:,}.'
    return [note, *answer_warnings(scores)]


def tour(run, out):
    "Write the file."
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs

    from vsgrpo.evaluation.generate import PARSER
    from vsgrpo.training.explorer import script_json
    from vsgrpo.data.geometry import room_outline
    from vsgrpo.data.scene_facts import measure
    from vsgrpo.training.runs import held_out, read_predictions, read_run
    from vsgrpo.data.scannet import read_scene
    from vsgrpo.data.question_marks import answer_text, question_marks
    from vsgrpo.data.viewer import mark_traces, view_scene
    from vsgrpo.evaluation.vsibench import score_answer
    s, data = read_run(run)
    said, asked = read_predictions(s, data, run), held_out(s, data)
    name, questions = richest_scene(asked)
    scene = read_scene(data.folder/"scans"/name)
    facts = measure(scene)
    outline = room_outline(scene.vertices).simplify(.02)
    traces = lambda marks: json.loads(go.Figure(mark_traces(marks)).to_json())["data"]
    drawn = dict(scan=[t for t in json.loads(view_scene(scene, voxel_m=.06).to_json())["data"] if t["name"] == "scan"],
                 marks=[traces(question_marks(q, facts, outline)) for q in questions])

    def answer(q, arm):
        text, score = said[arm][q.id], score_answer(q, said[arm][q.id])
        return f'<td class="{"good" if score >= .5 else "bad"}">{escape(text)} <small>{score:.1f}</small></td>'
    rows = "".join(f'<tr class="ask"><td><button>{escape(q.question)}</button>{"<br><small>" + escape(" · ".join(q.options)) + "</small>" if q.options else ""}<br><small>{escape(q.question_type)}</small></td>'
                   f"<td>{escape(answer_text(q))}</td>{answer(q, 'base')}{answer(q, 'trained')}</tr>" for q in questions)
    both = {f"The model {when} training": said[arm] for when, arm in (("before", "base"), ("after", "trained"))}
    notes = answer_notes(questions, asked, both, PARSER[s.mode])
    noted = "".join(f"<li>{escape(note)}</li>" for note in notes)
    film = b64encode((data.folder/questions[0].video).read_bytes()).decode()
    told = json.loads((run/"run.json").read_text("utf-8"))
    page = f"""<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>
<meta http-equiv=Content-Security-Policy content="default-src 'none';img-src data: blob:;media-src data:;style-src 'unsafe-inline';script-src 'unsafe-inline'"><title>vsGRPO in a minute</title><style>{CSS}</style></head><body>
<h1>vsGRPO in a minute</h1>
<p>A room that nobody built: drawn by a program, written as a 3D scan, filmed to an mp4. A tiny Qwen2-VL ({escape(str(s.model))}, 0.7 M parameters) saw the film and was asked about it, before and after {s.steps} steps of
GRPO on other rooms. Choose a question; it is drawn in the room.</p>
<div class=two><div id=space role=img aria-label="the room in three dimensions, with the chosen question drawn in it"></div>
<div><video src="data:video/mp4;base64,{film}" autoplay loop muted playsinline controls aria-label="the film of the room"></video><p><small>What the model sees: {s.video.frames} frames of this film, of {s.video.max_pixels} pixels each.</small></p></div></div>
<ul class=notes>{noted}</ul>
<div class=wide><table><thead><tr><th>question</th><th>truth</th><th>before</th><th>after</th></tr></thead><tbody>{rows}</tbody></table></div>
<p><small>Behind an answer: its score, 0 to 1. One room shows what is asked, not how good the model is: over all held-out rooms the scores stand in the run's table. Run {escape(run.name)}, commit {escape(str(told.get("commit"))[:7])}.
The tiny model shows that the machinery works; it is no measure of the 2B.</small></p>
<script>{get_plotlyjs()}</script><script id=data type=application/json>{script_json(drawn)}</script><script>{JS}</script></body></html>
"""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, "utf-8")
    print(f"{out}: {out.stat().st_size/1e6:.1f} MB, {len(questions)} questions about {name}")


if __name__ == "__main__":
    tour(Path(sys.argv[1]) if len(sys.argv) > 1 else newest_run(),
         Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT/"runs"/"tour.html")
