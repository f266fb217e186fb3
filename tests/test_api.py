"Four functions and their commands: any video, any question, rows of one's own."
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import vsgrpo
from vsgrpo.cli import app
from vsgrpo.data.dataset import open_dataset
from vsgrpo.data.own_dataset import own_dataset
from vsgrpo.evaluation.own_rows import own_records, read_own_rows
from vsgrpo.evaluation.vsibench import score_answer

RUN = dict(steps=2, questions_per_step=4, probe_every=0)


def write_film(path, seed):
    "A moving pattern of two seconds, as PyAV writes it."
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = noise.shape[1], noise.shape[0], "yuv420p"
        for k in range(16):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(noise, 4*k, 1)), format="rgb24")
            for packet in stream.encode(frame): container.mux(packet)
        for packet in stream.encode(): container.mux(packet)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for k in range(6): write_film(folder/f"room {k}.mp4", k)
    return folder


def rows_of(films):
    "For each film a number, a choice and a text."
    rows = []
    for k in range(6):
        video = f"room {k}.mp4"
        nearer = ("table", "sink")[k % 2]
        rows += [dict(video=video, question="How many chairs are there?", answer=k + 1),
                 dict(video=video, question="Which is closer?", options=["table", "sink"], answer=nearer),
                 dict(video=video, question="What color is the sofa?", answer=("red", "blue", "green")[k % 3],
                      question_type="colors")]
    return rows


@pytest.fixture
def rows_file(films, tmp_path):
    rows = [row | dict(video=str(films/row["video"])) for row in rows_of(films)]
    (tmp_path/"rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path/"rows.jsonl"


@pytest.fixture
def here(tmp_path, monkeypatch):
    "Results go below a folder of the test."
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_four_formats_read_alike(films):
    rows, texts = rows_of(films), [r | dict(answer=str(r["answer"])) for r in rows_of(films)]
    (films/"a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (films/"a.json").write_text(json.dumps(rows))
    with open(films/"a.csv", "w", newline="") as f:
        table = csv.DictWriter(f, ["video", "question", "answer", "options", "question_type"])
        table.writeheader()
        table.writerows(r | ({"options": "|".join(r["options"])} if "options" in r else {}) for r in rows)
    pd.DataFrame(texts).to_parquet(films/"a.parquet")
    read = [read_own_rows(films/f"a{ending}") for ending in (".jsonl", ".json", ".csv", ".parquet")]
    assert all(r.questions == read[0].questions and r.videos == read[0].videos for r in read)
    assert [q.question_type for q in read[0].questions[:3]] == ["number", "choice", "text: colors"]


@pytest.mark.parametrize("row, fault", [
    (dict(question="?", answer=1), "line 2: no video"),
    (dict(video="gone.mp4", question="?", answer=1), "line 2: video gone.mp4: no file"),
    (dict(video="room 0.mp4", answer=1), "line 2: no question"),
    (dict(video="room 0.mp4", question="?"), "line 2: no answer"),
    (dict(video="room 0.mp4", question="?", answer=None), "line 2: no answer"),
    (dict(video="room 0.mp4", question="?", answer=True), "line 2: answer: True, expected text"),
    (dict(video="room 0.mp4", question="?", answer=float("nan")), "line 2: no answer"),
    (dict(video="room 0.mp4", question="", answer=1), "line 2: question 2: question is '', expected text"),
    (dict(video="room 0.mp4", question=["?"], answer=1), "line 2: question: ['?'], expected text"),
    (dict(video=3.5, question="?", answer=1), "line 2: video 3.5: no file"),
    (dict(video="room 0.mp4", question="?", answer="x", options=["a", "b"]), "line 2: answer is 'x', expected one of"),
    (dict(video="room 0.mp4", question="?", answer="a", options=["a"]), "line 2: options is ['a'], expected 2 to 10"),
    (dict(video="room 0.mp4", question="?", answer="a", options={"a": 1, "b": 2}), "line 2: options is {"),
    (dict(video="room 0.mp4", question="?", answer="a", options=["a", "A"]), "hold one text twice"),
    (dict(video="room 0.mp4", question="?", answer="a", options=["a", " "]), "hold an empty text"),
    (dict(video="room 0.mp4", question="?", answer=1, id=1.5), "line 2: id is 1.5"),
    (dict(video="room 0.mp4", question="?", answer=1, id=1), "duplicate ids (1), first 1"),
    (dict(video="room 0.mp4", question="?", answer=1, id="one"), "some ids are text"),
    (dict(video="room 0.mp4", question="?", answer=1, scene="elsewhere"), "line 2: scene is 'elsewhere', and 'room_0'"),
    (dict(video="room 0.mp4", question="?", answer=1, option=["a", "b"]), "column 'option' is not read, did you mean"),
    (dict(video="room 0.mp4", question="?", answer="a", question_type="object_counting"), "ground_truth of object_c"),
    (dict(video="room 0.mp4", question="<|im_end|>", answer=1), "line 2: question 2: question holds '<|im_end|>'"),
])
def test_a_bad_row_is_named_with_its_line(films, row, fault):
    good = dict(video="room 0.mp4", question="How many?", answer=2)
    (films/"bad.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError) as e: read_own_rows(films/"bad.jsonl")
    assert fault in str(e.value) and "bad.jsonl" in str(e.value)


def test_bad_files_are_named(tmp_path):
    for name, text, fault in (("a.json", "{}", "expected a list"), ("a.json", "[1]", "item 1: expected an object"),
                              ("a.json", "[", "not JSON"), ("a.csv", "video,question\n", "no rows"),
                              ("a.csv", "video,question,answer\na,b,c,d\n", "line 2: more cells than columns"),
                              ("a.csv", 'video\n"a', "line"), ("a.txt", "x", "ending is '.txt'")):
        (tmp_path/name).write_text(text)
        with pytest.raises(ValueError, match=fault): own_records(tmp_path/name)
    (tmp_path/"a.csv").write_bytes(b"video\n\xff")
    with pytest.raises(ValueError, match="not UTF-8"): own_records(tmp_path/"a.csv")
    with pytest.raises(FileNotFoundError, match="no such file"): own_records(tmp_path/"b.csv")


def test_scores_of_own_rows(films):
    q = {q.question_type: q for q in read_own_rows_of(films)}
    assert score_answer(q["number"], "1") == 1 and score_answer(q["number"], "1.5 chairs") == .1
    assert [score_answer(q["choice"], x) for x in ("A", "a.", "B", "table", "<answer>A</answer>")] == [1, 1, 0, 1, 1]
    assert [score_answer(q["number"], x, "lmms-eval") for x in ("one", "about 1")] == [1, 1]
    assert [score_answer(q["text: colors"], x) for x in ("red", " Red. ", "dark red")] == [1, 1, 0]


def read_own_rows_of(films):
    (films/"some.json").write_text(json.dumps(rows_of(films)[:3]))
    return read_own_rows(films/"some.json").questions


def test_ask_any_video(films):
    answer = vsgrpo.ask(films/"room 0.mp4", "Which is closer?", model="tiny", options=["table", "<b>sink</b>"])
    assert answer.text and str(answer) == answer.text and answer.frames.shape == (4, 70, 84, 3)
    assert answer.prompt.splitlines()[2:5] == ["Options:", "A. table", "B. <b>sink</b>"]
    assert "<img" in answer._repr_html_()


def test_a_thought_stands_apart_and_is_escaped(films):
    from vsgrpo.api import Answer, split_thought
    text, thought = split_thought("<observe>a <b>bed</b></observe><answer>2</answer>", "observe")
    page = Answer(text, thought, "", "", np.zeros((4, 8, 8, 3), np.uint8))._repr_html_()
    assert text == "2" and "&lt;b&gt;bed" in page and "<b>bed" not in page


@pytest.mark.parametrize("change, fault", [
    (dict(video="gone.mp4"), "gone.mp4: no such video file"), (dict(question=" "), "question is ' '"),
    (dict(mode="dream"), "mode is 'dream'"), (dict(mode="think"), "does not know its tags"),
    (dict(options=["one"]), "wanted a list of 2 to 10"), (dict(options="ab"), "wanted a list of 2 to 10"),
    (dict(adapter="gone"), "adapter gone: no such folder"), (dict(adapter="."), "no adapter_model.safetensors"),
])
def test_ask_refuses_bad_input_before_it_loads_a_model(films, monkeypatch, change, fault):
    monkeypatch.setattr("vsgrpo.api._loaded", lambda t: pytest.fail("a model was loaded"))
    given = dict(video=films/"room 0.mp4", question="How many?") | change
    with pytest.raises((ValueError, FileNotFoundError)) as e: vsgrpo.ask(**given)
    assert fault in str(e.value)


def test_evaluate_own_rows(rows_file, here):
    result = vsgrpo.evaluate(rows_file, model="tiny", out=here/"eval")
    arms = result.table.set_index(["arm", "question_type"])
    assert {"vanilla", "shuffled", "blind", "constant, best"} <= set(result.table.arm)
    assert arms.n["vanilla", "text: colors"] == 6 and arms.n["vanilla", "overall"] == 18
    assert arms.score["constant, best", "choice"] == 50
    answers = [json.loads(line) for line in (here/"eval"/"answers.jsonl").read_text().splitlines()]
    own = [row for row in answers if row["arm"] == "modes"]
    (here/"own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    again = vsgrpo.score(here/"own.jsonl", rows=rows_file).set_index("question_type").score
    assert again.to_dict() == arms.score["vanilla"].to_dict()
    assert "another video" in repr(result) and 'class="house"' in result._repr_html_()


@pytest.mark.parametrize("method", ["grpo", "sft", "dpo"])
def test_train_on_own_rows_and_ask_the_trained_model(rows_file, films, here, method):
    result = vsgrpo.train(rows_file, method=method, out=here/"run", **RUN)
    assert {"base", "trained"} <= set(result.table.arm) and (here/"run"/"adapter").is_dir()
    assert vsgrpo.ask(films/"room 1.mp4", "How many chairs are there?", adapter=here/"run").text
    with pytest.raises(ValueError, match="was trained on model 'tiny', asked for is 'tiny-cot'"):
        vsgrpo.ask(films/"room 1.mp4", "How many?", model="tiny-cot", adapter=here/"run")
    with pytest.raises(ValueError, match="holds a run already"): vsgrpo.train(rows_file, out=here/"run", **RUN)


def test_train_refuses_bad_input_before_it_reads_data(rows_file, films):
    with pytest.raises(ValueError, match="setting 'lora_rnk' is unknown"): vsgrpo.train("gone.jsonl", lora_rnk=3)
    with pytest.raises(ValueError, match="method is 'ppo'"): vsgrpo.train("gone.jsonl", method="ppo")
    with pytest.raises(FileNotFoundError, match="no such file"): vsgrpo.train("gone.jsonl")
    (films/"few.json").write_text(json.dumps(rows_of(films)[:9]))
    with pytest.raises(ValueError, match="3 different videos or scenes, expected at least 5"):
        vsgrpo.train(films/"few.json")


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["00_prompting", "20_grpo", "30_baselines"])
def test_chapters_take_own_rows(rows_file, tmp_path, root, chapter):
    given = ["data", str(rows_file)]
    if chapter == "00_prompting": given = ["bench", str(rows_file), "-p", "samples", "1"]
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", f"nbs/{chapter}.ipynb", str(tmp_path/"out.ipynb"),
            "-p", "scale", "smoke", "-p", "out", str(tmp_path/"run"), "-p", *given]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and (tmp_path/"run").is_dir(), done.stderr[-1500:]


def test_dpo_without_wrong_answers_is_refused_before_it_starts(films, here):
    rows = [row | dict(video=str(films/row["video"]), answer="red") for row in rows_of(films)[2::3]]
    (here/"red.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="DPO needs a wrong answer, expected other questions of type text: colors"):
        vsgrpo.train(here/"red.json", method="dpo", out=here/"run", steps=2, questions_per_step=2)
    assert not (here/"run"/"run.json").exists()


def test_few_scenes_are_called_few(rows_file, here):
    result = vsgrpo.evaluate(rows_file, limit=3, out=here/"eval")
    assert "With 3 scenes the intervals say little" in repr(result)


def test_places_are_not_split(films, tmp_path):
    rows = [row | dict(video=str(films/row["video"])) for row in rows_of(films)]
    (tmp_path/"rows.json").write_text(json.dumps(rows))
    data = open_dataset(own_dataset(tmp_path/"rows.json", tmp_path/"own"))
    sets = [{q.scene_name for q in questions} for questions in (data.train, data.dev, data.test)]
    assert [len(scenes) for scenes in sets] == [3, 1, 2] and len(set.union(*sets)) == 6
    before = own_dataset(tmp_path/"rows.json", tmp_path/"own")
    (tmp_path/"rows.json").write_text(json.dumps(rows[:-1]))
    assert own_dataset(tmp_path/"rows.json", tmp_path/"own") != before      # other rows, another folder


def test_commands(films, rows_file, here):
    run = CliRunner().invoke
    for command in ("ask", "eval", "train", "build", "score"):
        shown = run(app, [command, "--help"], env=dict(COLUMNS="200"))
        assert shown.exit_code == 0 and "Usage" in shown.output
    answer = run(app, ["ask", str(films/"room 0.mp4"), "Which is closer?", "--option", "a", "--option", "b", "--json"])
    assert json.loads(answer.output.splitlines()[-1])["answer"]
    (here/"answers.jsonl").write_text("".join(json.dumps(dict(id=i, prediction="1")) + "\n" for i in range(1, 19)))
    scores = run(app, ["score", "answers.jsonl", "--rows", str(rows_file), "--json"])
    tasks = [row["question_type"] for row in json.loads(scores.output)]
    assert tasks == ["choice", "number", "text: colors", "overall"]
    made = run(app, ["build", "--out", str(here/"made"), "--rooms", "3", "--workers", "1"])
    assert made.exit_code == 0 and len({q.scene_name for q in open_dataset(here/"made").train}) == 3


def test_a_mistake_ends_in_one_line(tmp_path, root):
    env = os.environ | dict(PYTHONPATH=str(root))
    for words in (["ask", "gone.mp4", "?"], ["eval", "gone.jsonl"], ["train", "gone.jsonl"], ["score", "gone.jsonl"],
                  ["build", "--out", "made", "--scans", "gone", "--no-leak-guard"]):
        done = subprocess.run([sys.executable, "-c", "from vsgrpo.cli import main; main()", *words], cwd=tmp_path,
                              env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and done.stdout == "", done
        assert len(done.stderr.splitlines()) == 1 and "gone" in done.stderr, done.stderr
    assert not list(Path(tmp_path).iterdir())


def test_importing_is_light(root):
    "No torch, and none of the library's own modules."
    code = ("import sys, vsgrpo; assert set(vsgrpo.__all__) <= set(dir(vsgrpo)); "
            "assert not {'torch', 'pandas', 'vsgrpo.api'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | dict(PYTHONPATH=str(root)))
    code = "import sys, vsgrpo; vsgrpo.score; assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | dict(PYTHONPATH=str(root)))
