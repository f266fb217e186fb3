"A run as one reads it: what a model wrote stays text, its guess is to scale, what is missing is said."
import io, json, re
from contextlib import redirect_stdout
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import shapely

from vsgrpo.training.explorer import (choose_groups, explore_run, group_html, group_rows, lab_steps, lab_summary,
                                      lab_table, load_scene, open_run, page_data, read_guess, reward_lab, score_html,
                                      script_json, write_page)
from vsgrpo.data.geometry import room_outline
from vsgrpo.training.rewards import accuracy_reward
from vsgrpo.evaluation.records import Run
from vsgrpo.data.question_marks import GUESS_MOST_M, GUESSED, guess_marks, guess_text
from vsgrpo.data.viewer import draw_plan, view_scene
from vsgrpo.evaluation.vsibench import LETTERS
from vsgrpo.evaluation.rows import read_questions

EVIL = "</script><img src=x onerror=alert(1)><!--"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, built_rooms):
    "A run of made-up completions about two generated rooms."
    root = tmp_path_factory.mktemp("explorer")
    data = built_rooms(2, 1, 1)
    questions = read_questions(data/"train.parquet")
    run = Run(root/"run")
    run.write_settings(dict(model="<b>none</b>", mode="vanilla", data=str(data),
                            video=dict(frames=4, min_pixels=7056, max_pixels=7056, factor=14)))
    for step in (1, 2, 3):
        said = lambda q: [q.ground_truth, "B" if q.is_mca else f"{1.25*float(q.ground_truth):.2f}", "no idea", EVIL,
                          f"{step}"]
        run.log_rollouts([dict(step=step, id=q.id, scene_name=q.scene_name, question_type=q.question_type,
                               question=f"Look.\n{q.question}\nAnswer.", ground_truth=q.ground_truth,
                               options=q.options, mode="vanilla", completion=c,
                               accuracy_reward=accuracy_reward([c], q.question_type, q.ground_truth, "vanilla",
                                                               options=[q.options])[0])
                          for q in questions for c in said(q)])
        run.log_metrics(step, dict(reward=.1*step))
    (run.folder/"scores.csv").write_text("arm,question_type,n,score,ci_low,ci_high\n<i>base,overall,10,31.25,20,40\n")
    return run.folder


@pytest.fixture(scope="module")
def run(folder): return open_run(folder)

@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with redirect_stdout(io.StringIO()) as told:
        file = write_page(folder, tmp_path_factory.mktemp("page")/"run.html",
                          notes=["as good <u>with another room's video"], voxel_m=.3)
    return file, told.getvalue()

def of_task(run, task): return next(q for q in run.questions.values() if q.task == task)

def long(m): return float(np.linalg.norm(m.points[-1] - m.points[0]))


class Seen(HTMLParser):
    "Elements of a page, and the text of its scripts."
    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside: self.scripts.append("")
    def handle_endtag(self, tag): self.inside = False
    def handle_data(self, text):
        if self.inside: self.scripts[-1] += text


def test_page_is_text_and_self_contained(page):
    file, told = page
    text = file.read_text("utf-8")
    seen = Seen(text)
    assert [t for t, _ in seen.tags].count("script") == 3
    assert not {"u", "i", "iframe", "link", "a"} & {t for t, _ in seen.tags}
    for tag, attrs in seen.tags:
        assert not any(k.startswith("on") for k in attrs) and "href" not in attrs, (tag, attrs)
        assert attrs.get("src", "data:").startswith("data:")
    plotly, data, own = seen.scripts
    assert "<" not in data
    assert not re.search(r"https?://|url\(|@import", text.replace(plotly, ""))
    assert "default-src 'none'" in text
    kept = json.loads(data)
    assert EVIL in {a["text"] for s in kept["steps"] for c in s["scenes"] for q in c["questions"] for a in q["answers"]}
    assert "as good &lt;u&gt;with" in text and "&lt;i&gt;base" in text and "&lt;b&gt;none" in text
    assert re.search(r"run\.html: \d+\.\d MB", told)
    assert file.stat().st_size < 12e6

def test_each_scene_is_kept_once(page):
    data = json.loads(Seen(page[0].read_text("utf-8")).scripts[1])
    assert [s["step"] for s in data["steps"]] == [1, 2, 3]
    assert len(data["scenes"]) == 2
    for scene in data["scenes"].values():
        assert [t["type"] for t in scene["scan"]] == ["mesh3d"] and scene["strip"].startswith("data:image/jpeg") and scene["said"] == ""
    for q in (q for s in data["steps"] for c in s["scenes"] for q in c["questions"]):
        assert q["marks"] and set(q["guesses"]) == {a["read"] for a in q["answers"]} and q["guesses"]["nothing"] == []
        assert [a["reward"] for a in q["answers"]] == sorted((a["reward"] for a in q["answers"]), reverse=True)

def test_guesses_are_to_scale(run):
    for q in run.questions.values():
        scene, facts, _, lacks = load_scene(run, q.scene_name)
        assert lacks == []
        outline = room_outline(scene.vertices)
        marks = partial(guess_marks, q, facts, outline=outline)
        assert marks(None) == [] and guess_text(q, None).startswith("no answer can be read")
        if q.task == "object_abs_distance":
            assert [long(marks(x)[0]) for x in (.4, 2.1)] == pytest.approx([.4, 2.1])
            i, j = ([o.object_id for o in facts.objects].index(k) for k in q.provenance["objects"])
            a, b = facts.points(i, j)
            guess, = marks(float(np.linalg.norm(b - a)))
            assert guess.points[1] - guess.points[0] == pytest.approx(b - a)
            assert np.linalg.norm(guess.points[0] - a) == pytest.approx(.08)
            assert guess.label.startswith("guessed") and guess.label.endswith(f"true {q.ground_truth} m")
            assert long(marks(1e12)[0]) == pytest.approx(GUESS_MOST_M) and marks(1e12)[0].dash
            assert long(marks(-2.)[0]) == 0
        if q.task == "object_size_estimation":
            assert [long(marks(x)[0]) for x in (40., 210.)] == pytest.approx([.4, 2.1])
        if q.task == "room_size_estimation":
            assert [sum(shapely.Polygon(m.points[:, :2]).area for m in marks(x))
                    for x in (3., 50.)] == pytest.approx([3., 50.])
            ring = shapely.Polygon(marks(float(outline.area))[0].points[:, :2])
            assert outline.symmetric_difference(ring).area < 1e-6
        if q.task == "object_rel_direction":
            assert all(m.arrow for x in LETTERS[:len(q.options)] for m in marks(x)) and marks("sideways") == []
        if q.task == "object_rel_distance":
            assert long(marks(q.ground_truth)[0]) == pytest.approx(min(q.provenance["distances_m"].values()), abs=1e-3)

def test_guess_in_both_views(run):
    import matplotlib.pyplot as plt
    q = of_task(run, "object_abs_distance")
    scene, facts, _, _ = load_scene(run, q.scene_name)
    colours = lambda guess: {t["line"]["color"]
                             for t in json.loads(view_scene(scene, facts, q, voxel_m=.4, guess=guess).to_json())["data"]
                             if t.get("name") == "question"and "line" in t}
    assert GUESSED in colours(2.) and GUESSED not in colours(None) | colours("")
    for guess, title in ((2., "guessed 2 m"), (None, "no answer can be read"), ("", "")):
        ax = draw_plan(facts, q, guess=guess)
        assert ax.get_title().startswith(title) and (GUESSED in [x.get_color() for x in ax.lines]) == (guess == 2.)
    plt.close("all")

def test_what_is_read(run):
    q, letter = of_task(run, "object_abs_distance"), of_task(run, "object_rel_direction")
    assert [read_guess(q, c, "vanilla")
            for c in ("2.5", "2.5 meters", "about two", "", EVIL)] == [2.5, 2.5, None, None, None]
    assert read_guess(q, "<think>3</think><answer>1.5</answer>",
                      "think") == 1.5 and read_guess(q, "1.5", "think") is None
    assert read_guess(letter, letter.options[1][3:], "vanilla") == "B"
    assert EVIL not in group_html(q, group_rows(run, 1,
                                                q.id)) and "&lt;/script&gt;" in group_html(q, group_rows(run, 1, q.id))
    with pytest.raises(ValueError, match="no completion of question 'x' in step 1"): group_rows(run, 1, "x")

def test_explorer_follows_its_menus(folder):
    said, menus, question, answer, strip, page, space = explore_run(folder).children
    step, scene = menus.children
    assert (step.options, len(scene.options), len(answer.options)) == ((1, 2, 3), 2, 5)
    seen = {page.value}
    def changed():
        assert page.value not in seen and EVIL not in page.value
        seen.add(page.value)
    answer.value = 2; changed()
    question.index = 1; changed()
    film, before = strip.value, space.outputs
    scene.index = 1; changed()
    assert strip.value != film and space.outputs != before
    step.value = 3; changed()
    assert "mesh3d" in str(space.outputs) and said.value == "<ul></ul>"

def test_missing_parts_are_said(folder, tmp_path):
    (tmp_path/"bare").mkdir()
    with redirect_stdout(io.StringIO()):
        text = write_page(tmp_path/"bare").read_text("utf-8")
        for words in ("run.json: ", "rollouts.jsonl: ", "no scores.csv", "no metrics.jsonl", "There are no rollouts"):
            assert words in text, words
        assert "plotly" not in Seen(text).scripts[0]
        lone = Seen(write_page(folder, tmp_path/"lone.html", scans=tmp_path).read_text("utf-8"))
    data = json.loads(lone.scripts[1])
    assert "2 of 2 scenes lack" in (tmp_path/"lone.html").read_text("utf-8")
    for path in (tmp_path/"bare/page.html", tmp_path/"lone.html"):
        assert str(tmp_path.parent) not in path.read_text("utf-8")
    with pytest.raises(ValueError, match="wanted a list of sentences"): write_page(folder, notes="one")
    assert all(s["scan"] is None and "no 3D view" in s["said"] and s["strip"] for s in data["scenes"].values())
    widget = explore_run(folder, scans=tmp_path)
    assert "no 3D view" in widget.children[0].value and widget.children[4].value[1:4] == b"PNG" and "reward" in widget.children[5].value
    blind = explore_run(folder, data=tmp_path)
    assert "no frames" in blind.children[0].value and "dataset (" in blind.children[0].value and "<table>" in blind.children[5].value
    assert len(explore_run(tmp_path/"bare").children[2].options) == 0
    assert "no rollouts" in reward_lab(tmp_path/"bare").children[1].value
    with pytest.raises(FileNotFoundError, match="no such folder"): open_run(tmp_path/"gone")

def test_broken_files_are_said(folder, tmp_path):
    bad = tmp_path/"bad"
    bad.mkdir()
    for name, text in {"run.json": "[1, 2", "metrics.jsonl": "{}\n", "scores.csv": "",
                       "rollouts.jsonl": '{"step": 1}\n'}.items():
        (bad/name).write_text(text)
    run = open_run(bad)
    assert len(run.lacks) == 5 and all(f"{name}: " in " ".join(run.lacks)
                                       for name in ("run.json", "scores.csv")) and "rollouts.jsonl, line 1: no id" in " ".join(run.lacks) and "metrics.jsonl, line 1: no step" in " ".join(run.lacks)
    with redirect_stdout(io.StringIO()):
        assert "no metrics.jsonl that can be read" in write_page(bad).read_text("utf-8")
    lines = (folder/"rollouts.jsonl").read_text("utf-8").splitlines()[:5]
    (bad/"run.json").write_text((folder/"run.json").read_text("utf-8"))
    (bad/"rollouts.jsonl").write_text("".join(json.dumps(json.loads(x) | {"mode": m, "ground_truth": "77"}) + "\n"
                                              for x, m in zip(lines, ["vanilla"]*4 + ["shout"])))
    run = open_run(bad)
    assert len(run.rows([1])) == 4 and run.groups.rows.sum() == 4 and any("1 completions are left out" in x
                                                                          for x in run.lacks) and any("but are others" in x for x in run.lacks)
    kept = page_data(run, choose_groups(run.groups), .4)["steps"][0]["scenes"][0]["questions"][0]
    assert kept["marks"] is None and "no provenance" in kept["said"]

def test_choice_of_groups(run):
    groups = choose_groups(run.groups, [3, 1], questions_per_step=3, scenes_per_step=1)
    assert groups.step.tolist() == [3]*3 + [1]*3 and groups.groupby("step").scene_name.nunique().tolist() == [1, 1]
    assert choose_groups(run.groups).step.unique().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"steps \[9\] have no rollouts"): choose_groups(run.groups, [9])

def test_lab(run, folder):
    q = of_task(run, "object_counting") if any(q.task == "object_counting"
                                               for q in run.questions.values()) else of_task(run, "object_abs_distance")
    group = group_rows(run, 1, q.id).assign(completion=[q.ground_truth, "w", "x", "y", "z"], reward=[0., 0, 0, 0, 1],
                                            advantage=[-.447, -.447, -.447, -.447, 1.788])
    table = lab_table(group, "accuracy")
    assert table.completion.tolist() == [q.ground_truth, "z"] and table.new_advantage.tolist() == pytest.approx([1.788, -.447], abs=1e-3)
    told = lab_summary(group, ["accuracy"]).loc["accuracy"]
    assert told.tolist() == pytest.approx([5, .2, 40, 20, 20, 0, 0])
    text, step, turned = reward_lab(folder).children[0].children
    assert text.value == "accuracy:mra format"
    lab = reward_lab(folder)
    before = lab.children[1].value
    lab.children[0].children[1].value = 2
    assert lab.children[1].value != before
    lab.children[0].children[1].index = 0               # back to all
    assert lab.children[0].children[1].label == "all steps" and lab.children[1].value == before
    lab.children[0].children[0].value = "<b>"
    assert "cannot be computed" in lab.children[1].value and "<b>" not in lab.children[1].value

def test_a_long_run_is_paid_again_in_part(run):
    "The steps of the lab are drawn by seed where they are many."
    group = len(run.rows([1]))
    assert lab_steps(run) == [1, 2, 3] and len(lab_steps(run, 2*group + 1)) == 2 and len(lab_steps(run, 1)) == 1
    assert lab_steps(run, group, seed=0) == lab_steps(run, group, seed=0) and len({*(lab_steps(run, group, seed=k)[0]
                                                                                     for k in range(20))}) > 1

def test_small_things():
    assert json.loads(script_json({"a": EVIL})) == {"a": EVIL} and "<" not in script_json(EVIL)
    assert "no scores.csv" in score_html(None)
    scores = pd.DataFrame([("base", "overall", 10, 31.2, 20., 40.)],
                          columns=["arm", "question_type", "n", "score", "ci_low", "ci_high"])
    assert score_html(scores.assign(counted=4, top_answer="<b>", top_share=.5, distinct=2, truth_top_share=.3,
                                    truth_distinct=4)) == score_html(scores)
