"""vsGRPO in one minute: one HTML file that loads nothing.

    python docs/tour.py [RUN] [OUT]    # RUN: a run folder of chapter 20; default: the newest finished one of the tiny
                                       # model. OUT: runs/tour.html

It shows a generated room in 3D, its film, questions drawn in the room, and the answers of the tiny model before and
after training. Two questions come first, drawn by seed: one that the trained model gets right and one that it gets
wrong. Then comes one of each type. Skeleton, style and script of the page are `tour.html`, `tour.css` and `tour.js`.
"""
import io
import itertools
import json
import sys
from base64 import b64encode
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
sys.path.insert(0, str(ROOT))
SEED = 0                      # of the draw of the two questions
RIGHT, WRONG = .9, .1         # least score of a right answer, greatest of a wrong one
LOOKED_AT = 12                # rooms among which the one is chosen whose film shows most objects


def newest_run():
    "The newest finished run of the tiny model of full length that was evaluated on generated rooms."
    found = []
    for scores in (ROOT/"runs").glob("grpo-tiny-vanilla-*/scores.csv"):
        folder = scores.parent
        settings = json.loads((folder/"run.json").read_text("utf-8"))["settings"]
        rooms = (Path(settings.get("data", ""))/"generated").is_dir() and not settings.get("bench")
        whole = settings.get("steps", 0) >= 50 and (folder/"answers"/"trained.jsonl").is_file()
        if rooms and whole: found.append(folder)
    if not found: sys.exit("no trained tiny model under runs/ yet: `make run` trains one in two minutes")
    return max(found, key=lambda folder: folder.stat().st_mtime)


def draw_right_and_wrong(questions, answers, seed=SEED):
    "A question that is answered right and one that is answered wrong, each drawn by seed; None if there is none."
    from vsgrpo.evaluation.vsibench import score_answer
    scored = [(q, score_answer(q, answers[q.id])) for q in sorted(questions, key=lambda q: q.id)]
    right = [q for q, score in scored if score >= RIGHT]
    wrong = [q for q, score in scored if score <= WRONG]
    rng = np.random.default_rng(seed)
    return tuple(some[rng.integers(len(some))] if some else None for some in (right, wrong))


def candidate_rooms(questions, answers):
    "Held-out rooms with most types of questions first; only those with a right and a wrong answer, if there are any."
    by_scene = {}
    for q in questions:
        if q.provenance is not None: by_scene.setdefault(q.scene_name, []).append(q)
    if not by_scene: sys.exit("a tour needs a run that was tested on generated rooms: their questions can be drawn")
    full = {name: qs for name, qs in by_scene.items() if None not in draw_right_and_wrong(qs, answers)} or by_scene
    return sorted(full.items(), key=lambda room: (-len({q.question_type for q in room[1]}), room[0]))


def room_with_most_objects(rooms, read):
    "Of the first rooms, the one whose first full frame shows most objects; `read` gives a room's scan."
    def n_shown(name):
        scene = read(name)
        frame = first_full_frame(scene)
        return sum(float(share[frame]) >= .005 for share in (scene.visibility or {}).values())
    return max(rooms[:LOOKED_AT], key=lambda room: n_shown(room[0]))


def first_full_frame(scene):
    "The first frame that shows as much of the scan as any: the camera may glide in from the side."
    points = scene.vertices[::max(1, len(scene.vertices)//2000)]
    size = 2*scene.intrinsic[:2, 2]
    shares = []
    for pose in scene.poses:
        there = (points - pose[:3, 3]) @ pose[:3, :3] @ scene.intrinsic.T
        pixels = there[:, :2]/there[:, 2:]
        shares.append(((there[:, 2] > 0) & (pixels > 0).all(1) & (pixels < size).all(1)).mean())
    first = int(np.argmax(np.array(shares) >= max(shares) - .01))
    return first if scene.pose_frames is None else int(scene.pose_frames[first])


def film_start(video, frame):
    "Second at which a frame is shown, and the frame as a PNG in base64."
    import av
    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate)
        picture = next(itertools.islice(container.decode(video=0), frame, None))
    png = io.BytesIO()
    picture.to_image().save(png, "png")
    return (frame + .5)/rate, b64encode(png.getvalue()).decode()


def chosen_questions(questions, answers):
    "The questions of the page with their labels: the two that are drawn, then one of each type."
    labels = ("right after training", "wrong after training")
    drawn = draw_right_and_wrong(questions, answers)
    shown = [(q, f"drawn by seed {SEED} among those answered {label}") for q, label in zip(drawn, labels) if q]
    types = {}
    for q in questions: types.setdefault(q.question_type, q)
    return shown + [(q, "") for q in types.values() if q not in [q for q, _ in shown]]


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


def drawing(scene, questions):
    "Plotly traces of the scan and of each question in it, and the extent of the room."
    import plotly.graph_objects as go

    from vsgrpo.data.geometry import room_outline
    from vsgrpo.data.scene_facts import measure
    from vsgrpo.data.viewer import mark_traces, view_scene
    from vsgrpo.data.question_marks import question_marks
    facts, outline = measure(scene), room_outline(scene.vertices).simplify(.02)
    def traces(figure): return json.loads(figure.to_json())["data"]
    scan = [t for t in traces(view_scene(scene, voxel_m=.06)) if t["name"] == "scan"]
    marks = [traces(go.Figure(mark_traces(question_marks(q, facts, outline)))) for q in questions]
    low, high = np.percentile(scene.vertices, [0, 100], axis=0)
    margin = .03*(high - low).max()
    return dict(scan=scan, marks=marks, extent=np.column_stack([low - margin, high + margin]).tolist())


def row_html(q, answers, label=""):
    "A question with its options, the truth, and each answer coloured by its score."
    from vsgrpo.data.question_marks import answer_text
    from vsgrpo.evaluation.vsibench import score_answer
    cells = []
    for text in answers:
        score = score_answer(q, text)
        kind = "good" if score >= .5 else "bad"
        cells.append(f'<td class="{kind}">{escape(text)} <small>{score:.1f}</small></td>')
    label = f"<span class=label>{escape(label)}</span><br>" if label else ""
    options = f"<br><small>{escape(' · '.join(q.options))}</small>" if q.options else ""
    return (f'<tr class="ask"><td>{label}<button>{escape(q.question)}</button>{options}<br>'
            f"<small>{escape(q.question_type)}</small></td><td>{escape(answer_text(q))}</td>{''.join(cells)}</tr>")


def tour(run, out):
    "Write the file."
    from vsgrpo.data.scannet import read_scene
    from vsgrpo.evaluation.generate import PARSER
    from vsgrpo.training.run_page import fill_template, plotly_script, script_json
    from vsgrpo.training.runs import held_out, read_predictions, read_run
    s, data = read_run(run)
    held_out_questions, predictions = held_out(s, data), read_predictions(s, data, run)
    before, after = predictions["base"], predictions["trained"]
    def read(name): return read_scene(data.folder/"scans"/name)
    name, of_room = room_with_most_objects(candidate_rooms(held_out_questions, after), read)
    labelled, scene = chosen_questions(of_room, after), read(name)
    questions = [q for q, _ in labelled]
    film = data.folder/questions[0].video
    start, poster = film_start(film, first_full_frame(scene))
    answers = {"The model before training": before, "The model after training": after}
    notes = answer_notes(questions, held_out_questions, answers, PARSER[s.mode])
    record = json.loads((run/"run.json").read_text("utf-8"))
    page = fill_template((HERE/"tour.html").read_text("utf-8"), {
        "model": escape(str(s.model)), "steps": str(s.steps), "frames": str(s.video.frames),
        "pixels": str(s.video.max_pixels),
        "film": b64encode(film.read_bytes()).decode(), "start": f"{start:.3f}", "poster": poster,
        "walkthrough": b64encode((HERE/"room.png").read_bytes()).decode(),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes),
        "rows": "".join(row_html(q, (before[q.id], after[q.id]), label) for q, label in labelled),
        "run": escape(run.name), "commit": escape(str(record.get("commit"))[:7]),
        "plotly": plotly_script(), "data": script_json(drawing(scene, questions)),
        "css": (HERE/"tour.css").read_text("utf-8"), "js": (HERE/"tour.js").read_text("utf-8")})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, "utf-8")
    print(f"{out}: {out.stat().st_size/1e6:.1f} MB, {len(questions)} questions about {name}")


if __name__ == "__main__":
    tour(Path(sys.argv[1]) if len(sys.argv) > 1 else newest_run(),
         Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT/"runs"/"tour.html")
