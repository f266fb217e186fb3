"""vsGRPO in one minute: one HTML file that loads nothing.

    python docs/tour.py [RUN] [OUT]    # RUN: a run folder of chapter 20; the newest finished one of the tiny model.
                                       # OUT: runs/tour.html

It shows a generated room in 3D, its film, one question of each type drawn in the room, and what the tiny model answered
before and after training. Skeleton, style and script of the page are `tour.html`, `tour.css` and `tour.js`.
"""
import json
import sys
from base64 import b64encode
from collections import Counter
from html import escape
from pathlib import Path

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
sys.path.insert(0, str(ROOT))


def newest_run():
    "The newest finished run of the tiny model in full length that answered questions about generated rooms."
    found = []
    for scores in (ROOT/"runs").glob("grpo-tiny-vanilla-*/scores.csv"):
        folder = scores.parent
        steps = json.loads((folder/"run.json").read_text("utf-8"))["settings"].get("steps", 0)
        if steps >= 50 and (folder/"answers"/"trained.jsonl").is_file(): found.append(folder)
    if not found: sys.exit("no trained tiny model under runs/ yet: `make run` trains one in two minutes")
    return max(found, key=lambda folder: folder.stat().st_mtime)


def richest_scene(questions):
    "The held-out room with most types of questions, and one question of each."
    by_scene = {}
    for q in questions:
        if q.provenance is not None: by_scene.setdefault(q.scene_name, {}).setdefault(q.question_type, q)
    name = max(sorted(by_scene), key=lambda scene: len(by_scene[scene]))
    return name, list(by_scene[name].values())


def answer_notes(shown, questions, answers, parser):
    """Sentences about answers that are (nearly) always the same, in the choice rows of the page and over all questions.

    `answers` holds the predictions before and after training: name → {question id: text}, the trained model's last."""
    from vsgrpo.evaluation.generate import answer_name, answer_warnings, arm_scores
    from vsgrpo.evaluation.vsibench import parse_answer
    trained = list(answers.values())[-1]
    warnings = answer_warnings(arm_scores(answers, questions, parser))
    choices, rows = ([q for q in some if q.options] for some in (questions, shown))
    if not rows: return warnings

    def count(questions): return Counter(answer_name(parse_answer(q, trained[q.id] or "", parser)) for q in questions)
    (top, n), everywhere = count(rows).most_common(1)[0], count(choices)
    right = sum(q.ground_truth == top for q in choices)
    note = f'After training {n} of the {len(rows)} choice rows read "{top}": over all held-out rooms the trained model '
    note += f'answers "{top}" to {everywhere[top]:,} of {len(choices):,} choice questions; that is right for {right:,}.'
    return [note, *warnings]


def drawing(data, name, questions):
    "Traces of the room's scan, and of each question in it."
    import plotly.graph_objects as go

    from vsgrpo.data.geometry import room_outline
    from vsgrpo.data.scene_facts import measure
    from vsgrpo.data.scannet import read_scene
    from vsgrpo.data.viewer import mark_traces, view_scene
    from vsgrpo.data.question_marks import question_marks
    scene = read_scene(data.folder/"scans"/name)
    facts, outline = measure(scene), room_outline(scene.vertices).simplify(.02)
    def traces(figure): return json.loads(figure.to_json())["data"]
    scan = [t for t in traces(view_scene(scene, voxel_m=.06)) if t["name"] == "scan"]
    marks = [traces(go.Figure(mark_traces(question_marks(q, facts, outline)))) for q in questions]
    return dict(scan=scan, marks=marks)


def row_html(q, answers):
    "A question with its options, the truth, and each answer coloured by its score."
    from vsgrpo.data.question_marks import answer_text
    from vsgrpo.evaluation.vsibench import score_answer
    cells = []
    for text in answers:
        score = score_answer(q, text)
        kind = "good" if score >= .5 else "bad"
        cells.append(f'<td class="{kind}">{escape(text)} <small>{score:.1f}</small></td>')
    options = f"<br><small>{escape(' · '.join(q.options))}</small>" if q.options else ""
    return (f'<tr class="ask"><td><button>{escape(q.question)}</button>{options}<br><small>{escape(q.question_type)}'
            f"</small></td><td>{escape(answer_text(q))}</td>{''.join(cells)}</tr>")


def tour(run, out):
    "Write the file."
    from vsgrpo.evaluation.generate import PARSER
    from vsgrpo.training.run_page import fill_template, plotly_script, script_json
    from vsgrpo.training.runs import held_out, read_predictions, read_run
    s, data = read_run(run)
    held_out_questions, predictions = held_out(s, data), read_predictions(s, data, run)
    before, after = predictions["base"], predictions["trained"]
    name, questions = richest_scene(held_out_questions)
    answers = {"The model before training": before, "The model after training": after}
    notes = answer_notes(questions, held_out_questions, answers, PARSER[s.mode])
    record = json.loads((run/"run.json").read_text("utf-8"))
    page = fill_template((HERE/"tour.html").read_text("utf-8"), {
        "model": escape(str(s.model)), "steps": str(s.steps), "frames": str(s.video.frames),
        "pixels": str(s.video.max_pixels),
        "film": b64encode((data.folder/questions[0].video).read_bytes()).decode(),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes),
        "rows": "".join(row_html(q, (before[q.id], after[q.id])) for q in questions),
        "run": escape(run.name), "commit": escape(str(record.get("commit"))[:7]),
        "plotly": plotly_script(), "data": script_json(drawing(data, name, questions)),
        "css": (HERE/"tour.css").read_text("utf-8"), "js": (HERE/"tour.js").read_text("utf-8")})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, "utf-8")
    print(f"{out}: {out.stat().st_size/1e6:.1f} MB, {len(questions)} questions about {name}")


if __name__ == "__main__":
    tour(Path(sys.argv[1]) if len(sys.argv) > 1 else newest_run(),
         Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT/"runs"/"tour.html")
