"The explorer and the page of a run: model text stays text, guesses are to scale, and what is missing is named."
import io
import json
import re
from contextlib import redirect_stdout
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import shapely

from vsgrpo.data.geometry import room_outline
from vsgrpo.data.question_marks import GUESS_MOST_M, GUESSED, guess_marks, guess_text
from vsgrpo.data.viewer import draw_plan, view_scene
from vsgrpo.evaluation.records import Run
from vsgrpo.evaluation.rows import read_questions
from vsgrpo.evaluation.vsibench import LETTERS
from vsgrpo.training.explorer import (explore_run, group_html, group_rows, lab_steps, lab_summary, lab_table,
                                      load_scene, open_run, read_guess, reward_lab)
from vsgrpo.training.rewards import accuracy_reward
from vsgrpo.training.run_page import choose_groups, fill_template, page_data, score_html, script_json, write_page

EVIL = "</script><img src=x onerror=alert(1)><!--"


def rollout(q, step, completion):
    "A completion of a question as a training records it."
    reward, = accuracy_reward([completion], q.question_type, q.ground_truth, "vanilla", options=[q.options])
    return dict(step=step, id=q.id, scene_name=q.scene_name, question_type=q.question_type,
                question=f"Look.\n{q.question}\nAnswer.", ground_truth=q.ground_truth, options=q.options,
                mode="vanilla", completion=completion, accuracy_reward=reward)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, built_rooms):
    "A run of made-up completions about two generated rooms."
    root = tmp_path_factory.mktemp("explorer")
    data = built_rooms(2, 1, 1)
    by_task = {(q.scene_name, q.task): q for q in read_questions(data/"train.parquet")}
    questions = list(by_task.values())
    run = Run(root/"run")
    video = dict(frames=4, min_pixels=7056, max_pixels=7056, factor=14)
    run.write_settings(dict(model="<b>none</b>", mode="vanilla", data=str(data), video=video))
    for step in (1, 2, 3):
        rows = []
        for q in questions:
            wrong = "B" if q.is_mca else f"{1.25*float(q.ground_truth):.2f}"
            rows += [rollout(q, step, completion) for completion in (q.ground_truth, wrong, "no idea", EVIL, f"{step}")]
        run.log_rollouts(rows)
        run.log_metrics(step, dict(reward=.1*step))
    (run.folder/"scores.csv").write_text("arm,question_type,n,score,ci_low,ci_high\n<i>base,overall,10,31.25,20,40\n")
    return run.folder


@pytest.fixture(scope="module")
def run(folder): return open_run(folder)


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    "The page of that run, and what was printed when it was written."
    with redirect_stdout(io.StringIO()) as printed:
        file = write_page(folder, tmp_path_factory.mktemp("page")/"run.html",
                          notes=["as good <u>with another room's video"], voxel_m=.3)
    return file, printed.getvalue()


def of_task(run, task): return next(q for q in run.questions.values() if q.task == task)


def length_m(mark): return float(np.linalg.norm(mark.points[-1] - mark.points[0]))


class PageReader(HTMLParser):
    "Elements of a page, and the text of its scripts."
    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.in_script = [], [], False
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if self.in_script: self.scripts.append("")
    def handle_endtag(self, tag): self.in_script = False
    def handle_data(self, text):
        if self.in_script: self.scripts[-1] += text


def page_content(file): return json.loads(PageReader(file.read_text("utf-8")).scripts[1])


def page_questions(content):
    return [q for step in content["steps"] for scene in step["scenes"] for q in scene["questions"]]


def test_page_is_text_and_self_contained(page):
    file, printed = page
    text = file.read_text("utf-8")
    reader = PageReader(text)
    assert [tag for tag, _ in reader.tags].count("script") == 3
    assert not {"u", "i", "iframe", "link", "a"} & {tag for tag, _ in reader.tags}
    for tag, attrs in reader.tags:
        assert not any(name.startswith("on") for name in attrs) and "href" not in attrs, (tag, attrs)
        assert attrs.get("src", "data:").startswith("data:")
    plotly, data, own = reader.scripts
    assert "<" not in data and "newQuestion" in own
    assert not re.search(r"https?://|url\(|@import", text.replace(plotly, ""))
    assert "default-src 'none'" in text and "{{" not in text.replace(plotly, "")
    assert EVIL in {answer["text"] for q in page_questions(json.loads(data)) for answer in q["answers"]}
    assert "as good &lt;u&gt;with" in text and "&lt;i&gt;base" in text and "&lt;b&gt;none" in text
    assert re.search(r"run\.html: \d+\.\d MB", printed)
    assert file.stat().st_size < 12e6

def test_the_script_finds_its_elements(page):
    "Every id that the script asks for is in the page, and every name it reads is in the data."
    reader = PageReader(page[0].read_text("utf-8"))
    script = reader.scripts[2]
    wanted = set(re.findall(r"byId\('(\w+)'\)|getElementById\('(\w+)'\)|fillMenu\('(\w+)'", script))
    assert {name for names in wanted for name in names if name} <= {attrs.get("id") for _, attrs in reader.tags}
    content = json.loads(reader.scripts[1])
    q, scene = page_questions(content)[0], next(iter(content["scenes"].values()))
    assert set(re.findall(r"question\.(\w+)", script)) <= set(q)
    assert set(re.findall(r"answer\.(\w+)", script)) | {"guess", "parts", "read"} <= set(q["answers"][0])
    assert {"scan", "strip", "missing"} == set(scene)

def test_each_scene_is_kept_once(page):
    content = page_content(page[0])
    assert [s["step"] for s in content["steps"]] == [1, 2, 3]
    assert len(content["scenes"]) == 2
    for scene in content["scenes"].values():
        assert [t["type"] for t in scene["scan"]] == ["mesh3d"]
        assert scene["strip"].startswith("data:image/jpeg") and scene["missing"] == ""
    for q in page_questions(content):
        assert q["marks"] and set(q["guesses"]) == {a["read"] for a in q["answers"]} and q["guesses"]["nothing"] == []
        rewards = [a["reward"] for a in q["answers"]]
        assert rewards == sorted(rewards, reverse=True)

def test_guesses_are_to_scale(run):
    for q in run.questions.values():
        scene, facts, _, missing = load_scene(run, q.scene_name)
        assert missing == []
        outline = room_outline(scene.vertices)
        marks = partial(guess_marks, q, facts, outline=outline)
        assert marks(None) == [] and guess_text(q, None).startswith("no answer can be read")
        check_guesses(q, facts, outline, marks)

def check_guesses(q, facts, outline, marks):
    "The marks of guesses of a question, by its task."
    if q.task == "object_abs_distance":
        assert [length_m(marks(x)[0]) for x in (.4, 2.1)] == pytest.approx([.4, 2.1])
        i, j = ([o.object_id for o in facts.objects].index(k) for k in q.provenance["objects"])
        a, b = facts.points(i, j)
        guess, = marks(float(np.linalg.norm(b - a)))
        assert guess.points[1] - guess.points[0] == pytest.approx(b - a)
        assert np.linalg.norm(guess.points[0] - a) == pytest.approx(.08)
        assert guess.label.startswith("guessed") and guess.label.endswith(f"true {q.ground_truth} m")
        assert length_m(marks(1e12)[0]) == pytest.approx(GUESS_MOST_M) and marks(1e12)[0].dash
        assert length_m(marks(-2.)[0]) == 0
    if q.task == "object_size_estimation":
        assert [length_m(marks(x)[0]) for x in (40., 210.)] == pytest.approx([.4, 2.1])
    if q.task == "room_size_estimation":
        def area_m2(guess): return sum(shapely.Polygon(m.points[:, :2]).area for m in marks(guess))
        assert [area_m2(x) for x in (3., 50.)] == pytest.approx([3., 50.])
        ring = shapely.Polygon(marks(float(outline.area))[0].points[:, :2])
        assert outline.symmetric_difference(ring).area < 1e-6
    if q.task == "object_rel_direction":
        assert all(m.arrow for x in LETTERS[:len(q.options)] for m in marks(x)) and marks("sideways") == []
    if q.task == "object_rel_distance":
        nearest = min(q.provenance["distances_m"].values())
        assert length_m(marks(q.ground_truth)[0]) == pytest.approx(nearest, abs=1e-3)

def test_guess_in_both_views(run):
    import matplotlib.pyplot as plt
    q = of_task(run, "object_abs_distance")
    scene, facts, _, _ = load_scene(run, q.scene_name)
    def colours(guess):
        traces = json.loads(view_scene(scene, facts, q, voxel_m=.4, guess=guess).to_json())["data"]
        return {t["line"]["color"] for t in traces if t.get("name") == "question" and "line" in t}
    assert GUESSED in colours(2.) and GUESSED not in colours(None) | colours("")
    for guess, title in ((2., "guessed 2 m"), (None, "no answer can be read"), ("", "")):
        ax = draw_plan(facts, q, guess=guess)
        assert ax.get_title("left").startswith(title)
        assert (GUESSED in [line.get_color() for line in ax.lines]) == (guess == 2.)
    plt.close("all")

def test_what_is_read(run):
    q, letter = of_task(run, "object_abs_distance"), of_task(run, "object_rel_direction")
    guesses = [read_guess(q, c, "vanilla") for c in ("2.5", "2.5 meters", "about two", "", EVIL)]
    assert guesses == [2.5, 2.5, None, None, None]
    assert read_guess(q, "<think>3</think><answer>1.5</answer>", "think") == 1.5
    assert read_guess(q, "1.5", "think") is None
    assert read_guess(letter, letter.options[1][3:], "vanilla") == "B"
    table = group_html(q, group_rows(run, 1, q.id))
    assert EVIL not in table and "&lt;/script&gt;" in table
    with pytest.raises(ValueError, match="no completion of question 'x' in step 1"): group_rows(run, 1, "x")

def test_explorer_follows_its_menus(folder):
    missing, menus, question, completion, strip, page, space = explore_run(folder).children
    step, scene = menus.children
    assert (step.options, len(scene.options), len(completion.options)) == ((1, 2, 3), 2, 5)
    seen = {page.value}
    def assert_changed():
        assert page.value not in seen and EVIL not in page.value
        seen.add(page.value)
    completion.value = 2
    assert_changed()
    question.index = 1
    assert_changed()
    film, before = strip.value, space.outputs
    scene.index = 1
    assert_changed()
    assert strip.value != film and space.outputs != before
    step.value = 3
    assert_changed()
    assert "mesh3d" in str(space.outputs) and missing.value == "<ul></ul>"

def test_missing_parts_are_named(folder, tmp_path):
    (tmp_path/"bare").mkdir()
    with redirect_stdout(io.StringIO()):
        text = write_page(tmp_path/"bare").read_text("utf-8")
        lone = write_page(folder, tmp_path/"lone.html", scans=tmp_path)
    for words in ("run.json: ", "rollouts.jsonl: ", "no scores.csv", "no metrics.jsonl", "There are no rollouts"):
        assert words in text, words
    assert "plotly" not in PageReader(text).scripts[0]
    assert "2 of 2 scenes lack" in lone.read_text("utf-8")
    for path in (tmp_path/"bare/page.html", lone): assert str(tmp_path.parent) not in path.read_text("utf-8")
    with pytest.raises(ValueError, match="wanted a list of sentences"): write_page(folder, notes="one")
    for scene in page_content(lone)["scenes"].values():
        assert scene["scan"] is None and "no 3D view" in scene["missing"] and scene["strip"]
    missing, _, _, _, strip, page, _ = explore_run(folder, scans=tmp_path).children
    assert "no 3D view" in missing.value and strip.value[1:4] == b"PNG" and "reward" in page.value
    missing, _, _, _, _, page, _ = explore_run(folder, data=tmp_path).children
    assert "no frames" in missing.value and "dataset (" in missing.value and "<table>" in page.value
    assert len(explore_run(tmp_path/"bare").children[2].options) == 0
    assert "no rollouts" in reward_lab(tmp_path/"bare").children[1].value
    with pytest.raises(FileNotFoundError, match="no such folder"): open_run(tmp_path/"gone")

def test_broken_files_are_named(folder, tmp_path):
    bad = tmp_path/"bad"
    bad.mkdir()
    for name, text in {"run.json": "[1, 2", "metrics.jsonl": "{}\n", "scores.csv": "",
                       "rollouts.jsonl": '{"step": 1}\n'}.items():
        (bad/name).write_text(text)
    run = open_run(bad)
    assert len(run.missing) == 5
    for words in ("run.json: ", "scores.csv: ", "rollouts.jsonl, line 1: no id", "metrics.jsonl, line 1: no step"):
        assert words in " ".join(run.missing)
    with redirect_stdout(io.StringIO()):
        assert "no metrics.jsonl that can be read" in write_page(bad).read_text("utf-8")

def test_another_question_of_the_same_id_and_an_unknown_mode_are_named(folder, tmp_path):
    lines = (folder/"rollouts.jsonl").read_text("utf-8").splitlines()[:5]
    changed = [json.loads(line) | {"mode": mode, "ground_truth": "77"}
               for line, mode in zip(lines, ["vanilla"]*4 + ["shout"])]
    (tmp_path/"run.json").write_text((folder/"run.json").read_text("utf-8"))
    (tmp_path/"rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    run = open_run(tmp_path)
    assert len(run.rows([1])) == 4 and run.groups.rows.sum() == 4
    for words in ("1 completions are left out", "id of a different question"): assert words in " ".join(run.missing)
    q, = page_questions(page_data(run, choose_groups(run.groups), .4))
    assert q["marks"] is None and "no provenance" in q["missing"]

def test_choice_of_groups(run):
    groups = choose_groups(run.groups, [3, 1], questions_per_step=3, scenes_per_step=1)
    assert groups.step.tolist() == [3]*3 + [1]*3 and groups.groupby("step").scene_name.nunique().tolist() == [1, 1]
    assert choose_groups(run.groups).step.unique().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"steps \[9\] have no rollouts"): choose_groups(run.groups, [9])
    none = choose_groups(run.groups[:0])
    assert len(none) == 0 and none.columns.tolist() == ["step", "scene_name", "id"]

def test_lab_tables(run):
    q = next((q for q in run.questions.values() if q.task == "object_counting"), of_task(run, "object_abs_distance"))
    group = group_rows(run, 1, q.id).assign(completion=[q.ground_truth, "w", "x", "y", "z"], reward=[0., 0, 0, 0, 1],
                                            advantage=[-.447, -.447, -.447, -.447, 1.788])
    table = lab_table(group, "accuracy")
    assert table.completion.tolist() == [q.ground_truth, "z"]
    assert table.new_advantage.tolist() == pytest.approx([1.788, -.447], abs=1e-3)
    summary = lab_summary(group, ["accuracy"]).loc["accuracy"]
    assert summary.tolist() == pytest.approx([5, .2, 40, 20, 20, 0, 0])

def test_lab_widget(folder):
    menus, page = reward_lab(folder).children
    text, step, _ = menus.children
    assert text.value == "accuracy:mra format"
    before = page.value
    step.value = 2
    assert page.value != before
    step.index = 0
    assert step.label == "all steps" and page.value == before
    text.value = "<b>"
    assert "cannot be computed" in page.value and "<b>" not in page.value

def test_the_lab_takes_some_steps_of_a_long_run(run):
    "Drawn by seed."
    group = len(run.rows([1]))
    assert lab_steps(run) == [1, 2, 3] and len(lab_steps(run, 2*group + 1)) == 2 and len(lab_steps(run, 1)) == 1
    assert lab_steps(run, group, seed=0) == lab_steps(run, group, seed=0)
    assert len({lab_steps(run, group, seed=k)[0] for k in range(20)}) > 1

def test_small_things():
    assert json.loads(script_json({"a": EVIL})) == {"a": EVIL} and "<" not in script_json(EVIL)
    assert fill_template("{{a}} {{b}}", {"a": "{{b}}", "b": r"\1"}) == r"{{b}} \1"
    assert "no scores.csv" in score_html(None)
    scores = pd.DataFrame([("base", "overall", 10, 31.2, 20., 40.)],
                          columns=["arm", "question_type", "n", "score", "ci_low", "ci_high"])
    spread = scores.assign(counted=4, top_answer="<b>", top_share=.5, distinct=2, truth_top_share=.3, truth_distinct=4)
    assert score_html(spread) == score_html(scores)
