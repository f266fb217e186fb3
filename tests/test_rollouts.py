"Run records: append, torn lines, kill and resume, non-finite numbers, tables, curves, other rewards."
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from vsgrpo.files import csv_text, write_text
from vsgrpo.evaluation.records import (HERE, ROLLOUT_FIELDS, Run, git_commit, questions_hash, read_metrics,
                                       read_records, read_rollouts, read_scores, versions)
from vsgrpo.training.rollouts import (Rollouts, group_advantage, plot_curves, rescore, rollout_table, smooth,
                                      total_reward)
from vsgrpo.engine.video import VideoSpec
from vsgrpo.evaluation.vsibench import Question
from vsgrpo.evaluation.rows import write_questions

Q = [Question(id=i, dataset="generated", scene_name=f"room_{i}", question_type="object_counting",
              question="How many chair(s) are in this room?", ground_truth=str(i+1)) for i in range(4)]


def rows(step, n=4, mode="think", **kw):
    base = dict(step=step, id=1, question_type="object_counting", question="How many?", ground_truth="4", mode=mode,
                completion="<think>one two three</think> <answer>4</answer>", accuracy_reward=1., format_reward=1.)
    return [{**base, **kw} for _ in range(n)]


def log_step(run, step):
    run.log_rollouts(rows(step))
    run.log_metrics(step, {"reward": step/10, "kl": .01*step})


def made_run(folder, steps):
    run = Run(folder)
    for step in range(1, steps + 1): log_step(run, step)
    return run


# ---- settings

def test_settings_say_what_the_numbers_depend_on(tmp_path):
    run = Run(tmp_path/"a"/"b")
    settings, spec = dict(lr=1e-5, video=VideoSpec(frames=8), folder=tmp_path), VideoSpec(frames=8)
    run.write_settings(settings, video_spec=spec, seed=3, dataset=Q)
    written = json.loads(run.settings_path.read_text())
    assert written == run.read_settings()
    assert written["seed"] == 3 and written["video_spec"] == spec.as_dict()
    assert written["settings"]["folder"] == str(tmp_path) and written["versions"]["python"].startswith("3.")
    assert written["dataset"] == {"questions": 4, "sha256": questions_hash(Q)} and "commit" in written
    assert sorted(p.name for p in run.folder.iterdir()) == ["manifest.json", "run.json"]
    assert run.changed_settings(settings) == []
    changed = {**settings, "lr": 5e-6, "new": 1}
    assert run.changed_settings(changed) == ["lr was 1e-05, is 5e-06", "new was 'not set', is 1"]


def test_data_hash_is_of_the_questions_not_of_the_file(tmp_path):
    hashes = {questions_hash(Q)}
    for name in ("q.parquet", "q.jsonl"):
        write_questions(Q, tmp_path/name)
        hashes.add(Run(tmp_path/name[2:]).write_settings({}, dataset=tmp_path/name)["dataset"]["sha256"])
    assert len(hashes) == 1
    assert questions_hash(Q[::-1]) != questions_hash(Q)


def test_commit(tmp_path):
    assert git_commit(tmp_path) is None
    def git(*a):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *a], cwd=tmp_path, check=True,
                       capture_output=True)
    git("init")
    (tmp_path/"f").write_text("1")
    git("add", "f")
    git("commit", "-m", "x")
    clean = git_commit(tmp_path)
    assert len(clean) == 40
    (tmp_path/"f").write_text("2")
    assert git_commit(tmp_path) == clean + "-dirty"


def test_versions_name_what_is_here(): assert {"python", "numpy"} <= set(versions())


# ---- lines

def test_lines_are_appended_and_read_back(tmp_path):
    made_run(tmp_path, 3)
    again = Run(tmp_path)
    again.log_metrics(4, {"reward": np.float32(.5), "n": np.int64(3)})
    again.log_rollouts(rows(4, 1, completion="größer\n\u2028x\u0085\u2029", list=np.arange(2)))
    metrics, rollouts = read_metrics(tmp_path), read_rollouts(tmp_path)
    assert metrics.step.tolist() == [1, 2, 3, 4] and metrics.attrs["torn"] == 0
    assert metrics.reward.iloc[-1] == .5 and metrics.n.iloc[-1] == 3
    last = rollouts.iloc[-1]
    assert len(rollouts) == 13 and last.completion == "größer\n\u2028x\u0085\u2029" and last.list == [0, 1]


def test_not_finite_is_null(tmp_path):
    run = Run(tmp_path)
    run.log_metrics(1, {"loss": float("nan"), "kl": np.inf})
    assert run.metrics_path.read_text() == '{"step": 1, "loss": null, "kl": null}\n'
    import torch
    run.log_metrics(2, {"loss": torch.tensor(.5), "kl": torch.tensor(float("nan"))})
    assert np.isnan(run.read_metrics().loss.astype(float)).tolist() == [True, False]


def test_what_cannot_be_written_leaves_no_half_line(tmp_path):
    run = made_run(tmp_path, 1)
    before = run.metrics_path.read_bytes(), run.rollouts_path.read_bytes()
    with pytest.raises(ValueError, match="expected plain data"): run.log_metrics(2, {"x": object()})
    with pytest.raises(ValueError, match="a rollout lacks completion"):
        run.log_rollouts([{k: v for k, v in rows(2)[0].items() if k != "completion"}])
    with pytest.raises(ValueError, match="expected plain data"):
        run.log_rollouts([*rows(2), {**rows(2)[0], "x": object()}])
    assert (run.metrics_path.read_bytes(), run.rollouts_path.read_bytes()) == before
    assert set(ROLLOUT_FIELDS) <= set(rows(1)[0])


@pytest.mark.parametrize("cut", [1, 2, 10, 25])
def test_torn_line_is_skipped_counted_and_cut_before_the_next(tmp_path, cut):
    run = made_run(tmp_path, 3)
    os.truncate(run.metrics_path, run.metrics_path.stat().st_size - cut)
    metrics = read_metrics(tmp_path)
    assert (metrics.step.tolist(), metrics.attrs["torn"]) == ([1, 2], 1)
    Run(tmp_path).log_metrics(3, {"reward": 9.})
    metrics = read_metrics(tmp_path)
    assert (metrics.step.tolist(), metrics.attrs["torn"], metrics.reward.iloc[-1]) == ([1, 2, 3], 0, 9.)


def test_torn_inside_a_character(tmp_path):
    run = Run(tmp_path)
    for step, text in ((1, "a"), (2, "ü")): run.log_rollouts(rows(step, 1, completion=text))
    data = run.rollouts_path.read_bytes()
    run.rollouts_path.write_bytes(data[:data.index("ü".encode())+1])
    assert read_rollouts(tmp_path).step.tolist() == [1]


def test_broken_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path/"metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2: not JSON"): read_metrics(tmp_path)
    with pytest.raises(FileNotFoundError, match="rollouts.jsonl"): read_rollouts(tmp_path)
    (tmp_path/"e.jsonl").write_text("")
    assert len(read_records(tmp_path/"e.jsonl")) == 0


@pytest.mark.parametrize("line, words", [
    ('[1, 2]', "line 2: list, expected an object"), ('{"step": "2"}', "line 2: step is '2', expected a whole number"),
    ('{"kl": 1}', "line 2: no step"),
    ('{"step": 2, "kl": NaN}', "line 2: kl is nan, expected a number or null"),
    ('{"step": 1e999}', "line 2: step is inf"), ('{"step": 2, "kl": true}', "line 2: kl is True"),
    ('\xff', "line 2: not JSON"), ('{"step": ' + "[" * 100_000, "line 2: not JSON"),
    ('{"step": ' + "9" * 40 + "}", "line 2: step is 9"), ('{"a": "\\ud800", "step": 2}', "line 2: not JSON")])
def test_a_foreign_line_is_named(tmp_path, line, words):
    (tmp_path/"metrics.jsonl").write_bytes(b'{"step": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=f"metrics.jsonl, {words}"): read_metrics(tmp_path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts.jsonl", "run.json"])
def test_what_was_changed_after_it_was_written_is_refused(tmp_path, name):
    "A digit, a whole line gone, two lines exchanged; a log may have grown by a torn line."
    run = Run(tmp_path)
    run.write_settings({"lr": 1e-5}, films={"a.mp4": "1"})
    for step in (1, 2, 3):
        run.log_rollouts(rows(step, 1))
        run.log_metrics(step, {"reward": step/10})
    read = {"metrics.jsonl": run.read_metrics, "rollouts.jsonl": run.read_rollouts, "run.json": run.read_settings}[name]
    whole = (tmp_path/name).read_bytes()
    lines = whole.splitlines(keepends=True)
    for harmed in (whole.replace(b"1", b"7", 1), whole[:-2], b"".join(lines[1:]),
                   b"".join([lines[1], lines[0], *lines[2:]])):
        (tmp_path/name).write_bytes(harmed)
        with pytest.raises(ValueError, match=f"{name}: damaged"): read()
    (tmp_path/name).write_bytes(whole + b'{"step": 4, "rew')
    assert len(read()) == 3 if name != "run.json" else read()["settings"] == {"lr": 1e-5}


@pytest.mark.parametrize("text, words", [
    ("", "not a table"), ("arm,score\ntrained,1\n", "no column question_type, n, ci_low, ci_high"),
    ("\xff\n", "not a table"),
    ("arm,question_type,n,score,ci_low,ci_high\ntrained,overall,4,forty,1,2\n",
     "score has values that are not numbers"),
    ("arm,question_type,n,score,ci_low,ci_high\ntrained,overall,4,40,1,2,3,4\n", "more cells than the head")])
def test_foreign_scores_are_refused_by_name(tmp_path, text, words):
    (tmp_path/"scores.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"scores.csv: .*{words}"): read_scores(tmp_path)


def test_two_records_of_one_folder_take_turns(tmp_path):
    one, other = Run(tmp_path), Run(tmp_path)
    one.write_settings({})
    for step in range(1, 7): (one if step % 2 else other).log_metrics(step, {"reward": 0})
    assert read_metrics(tmp_path).step.tolist() == [1, 2, 3, 4, 5, 6]


def test_truncate_after(tmp_path):
    run = made_run(tmp_path, 5)
    with open(run.rollouts_path, "a") as f: f.write('{"torn')
    assert run.truncate_after(3) == {"metrics.jsonl": 2, "rollouts.jsonl": 2*4 + 1}
    assert run.read_metrics().step.max() == run.read_rollouts().step.max() == 3
    assert run.truncate_after(3) == {"metrics.jsonl": 0, "rollouts.jsonl": 0}
    assert run.truncate_after(-1) == {"metrics.jsonl": 3, "rollouts.jsonl": 12}
    assert Run(tmp_path/"new").truncate_after(0) == {}


def test_killed_and_resumed_gives_the_record_of_an_uninterrupted_run(tmp_path):
    code = ("import sys\n"
            f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
            "from test_rollouts import made_run\n"
            "made_run(sys.argv[1], 100000)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path/"killed")])
    file, until = tmp_path/"killed"/"metrics.jsonl", time.time() + 60
    while not (file.exists() and file.stat().st_size > 2000) and time.time() < until: time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = Run(tmp_path/"killed")
    run.truncate_after(10)                                     # the checkpoint was of step 10
    for step in range(11, 21): log_step(run, step)
    whole = made_run(tmp_path/"whole", 20)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (run.folder/name).read_bytes() == (whole.folder/name).read_bytes()


# ---- tables and curves

def test_rewards_and_advantages():
    table = pd.DataFrame({"step": [1]*4 + [2]*2, "id": [1, 1, 2, 2, 1, 1],
                          "accuracy_reward": [0., 1., .5, .5, 0., 1.], "format_reward": [1., 1., 1., 1., 0., 1.]})
    assert total_reward(table).tolist() == [1, 2, 1.5, 1.5, 0, 2]
    assert group_advantage(table).round(3).tolist() == [-.707, .707, 0, 0, -.707, .707]
    assert group_advantage(table.iloc[:1]).tolist() == [0.]     # a group of one


def test_rollout_table(tmp_path):
    run = Run(tmp_path)
    run.log_rollouts([*rows(1, 1, accuracy_reward=0., completion="no tags\nat all "+"x"*200), *rows(1, 1), *rows(2, 1)])
    table = rollout_table(run.read_rollouts(), 1, width=20)
    assert table.reward.tolist() == [2., 1.] and table.answer.iloc[0] == "4" and pd.isna(table.answer.iloc[1])
    assert table.completion.iloc[1] == "no tags⏎at all xxxx…"
    assert "answer" not in rollout_table(run.read_rollouts().drop(columns="mode"), 1)
    with pytest.raises(ValueError, match="no rollouts of step 7, there are steps 1 to 2"):
        rollout_table(run.read_rollouts(), 7)


def test_curves(tmp_path):
    run = Run(tmp_path)
    metrics = {"reward": .5, "accuracy": .5, "format": 1., "accuracy/object_counting": .2, "kl": .1, "entropy": 1.,
               "completion_tokens": 5, "zero_variance_groups": .5}
    for step in range(30):
        sometimes = {"accuracy/room_size_estimation": .1} if step % 3 else {}
        run.log_metrics(step, metrics | sometimes | {"grad_norm": float("nan") if step == 4 else 1.})
    fig = plot_curves(run.read_metrics())
    assert [len(ax.lines) for ax in fig.axes] == [2]*8      # a metric and its mean, or the means of two metrics
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in fig.axes)
    flat = plot_curves(run.read_metrics().assign(kl=0.).drop(columns="format"))     # flat KL, one part
    assert {ax.get_title("left") for ax in fig.axes} - {ax.get_title("left") for ax in flat.axes} == {
        "KL from the base model", "parts of the reward"}
    import matplotlib.pyplot as plt
    assert not plt.get_fignums()
    assert smooth(pd.Series([np.nan, 2., 4.]), 10).iloc[1:].tolist() == [2., 3.]

def test_rollouts_under_other_rewards(tmp_path):
    "Under the run's own reward nothing changes; under another advantages turn; a user's function gets the columns."
    earned = {"4": 1., "8": 0., "5": .75, "20 chairs": 0.}
    table = pd.DataFrame([dict(step=1, id=1, question_type="object_counting", question="How many?", ground_truth="4",
                               mode="vanilla", completion=text, n_tokens=len(text), options=None,
                               accuracy_reward=reward, reward=reward) for text, reward in earned.items()])
    same = rescore(table, "accuracy")
    assert np.allclose(same.new_reward, table.reward) and same.reward.equals(table.reward)
    assert np.allclose(same.new_advantage, group_advantage(table))
    (tmp_path/"mine.py").write_text("def wordy(completions, question_type, completion_ids, prompts, **kw): return "
                                    "[float(len(i)) for i in completion_ids]")
    long = rescore(table, f"accuracy {tmp_path/'mine.py'}:wordy")
    assert long.new_reward.tolist() == [2., 1., 1.75, 9.] and long.wordy_reward.tolist() == [1, 1, 1, 9]
    assert np.sign(long.new_advantage).tolist() == [-1, -1, -1, 1]


def test_scores_are_safe_in_a_spreadsheet_and_read_back_as_they_were(tmp_path):
    texts = ["=HYPERLINK(1)", "+a", "-2 m", "-2", "@x", "'quoted'"]
    scores = pd.DataFrame({"arm": ["trained"]*6, "question_type": texts, "n": 3, "score": -1.5, "ci_low": -2.5,
                           "ci_high": 0., "top_answer": texts})
    write_text(csv_text(scores), tmp_path/"scores.csv")
    cells = [line.split(",") for line in (tmp_path/"scores.csv").read_text().splitlines()[1:]]
    assert [line[-1] for line in cells] == ["'=HYPERLINK(1)", "'+a", "'-2 m", "-2", "'@x", "'quoted'"]
    assert {line[3] for line in cells} == {"-1.5"}
    back = read_scores(tmp_path)
    assert back.top_answer.tolist() == texts and back.score.tolist() == [-1.5]*6

def test_no_table_is_written_past_csv_text():
    for path in sorted(HERE.rglob("*.py")):
        if path.name != "files.py": assert ".to_csv(" not in path.read_text("utf-8"), path

def test_a_long_record_is_never_held_whole(tmp_path):
    "Reading, resuming and dropping lines of 60 MB take a few MB; a changed byte is noticed before anything is given."
    run = Run(tmp_path)
    run.write_settings({"model": "tiny"}, seed=0, dataset=[])
    row = dict(id="q", question_type="object_counting", question="How many?", ground_truth="4", completion="x"*10_000,
               accuracy_reward=0.)
    for step in range(60): run.log_rollouts([row | {"step": step, "id": k} for k in range(100)])
    tracemalloc.start()
    try:
        rollouts = Rollouts(tmp_path)
        assert sum(len(table) for _, table in rollouts) == 6000
        assert rollouts.read([59, 3]).step.unique().tolist() == [59, 3]
        again = Run(tmp_path)
        assert again.truncate_after(57) == {"rollouts.jsonl": 200}
        again.log_rollouts([row | {"step": 58}])
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally: tracemalloc.stop()
    assert Rollouts(tmp_path).steps == list(range(59))
    with open(run.rollouts_path, "r+b") as f:
        f.seek(30_000_000)
        f.write(b"y")
    with pytest.raises(ValueError, match="rollouts.jsonl: damaged"): Rollouts(tmp_path)
