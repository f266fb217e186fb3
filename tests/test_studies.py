"Arms of a study, their tables, and findings that follow the numbers; all runs but one are made up."
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vsgrpo.data.dataset import open_dataset
from vsgrpo.evaluation.records import Run
from vsgrpo.evaluation.scores import paper_table
from vsgrpo.evaluation.vsibench import score_answer
from vsgrpo.files import write_json, write_text
from vsgrpo.training import results, studies
from vsgrpo.training.before_after import before_after
from vsgrpo.training.runs import held_out
from vsgrpo.training.settings import default_settings


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))


def soon(k): return min(1., k/10)
def climb(k): return .1 + .0125*k

def made_up(folder, collapsed=False, own=40., vanilla=35., tokens=12, tags=0., formats=soon, accuracy=lambda k: .5):
    "A run folder without a model: 40 steps, rewards by step from 0; one that collapsed lost its format in step 26."
    run = Run(folder)
    noted = dict(step=28, reason="the format reward fell from 1.00 to 0.40", action="note")
    if collapsed: write_json(noted, folder/"collapse.json")
    for k in range(40):
        paid, right = .05 if collapsed and k >= 25 else formats(k), accuracy(k)
        rewards = {"reward": paid + right, "accuracy": right, "accuracy/object_counting": right, "format": paid}
        patterns = {"hacks/extra tags": tags, "hacks/repetition": 0.}
        others = dict(kl=.1, entropy=1., completion_tokens=tokens, zero_variance_groups=.1, same=.1, loss=0.)
        run.log_metrics(k + 1, rewards | patterns | others)
    arms = {"base": 20., "trained": own, "trained_shuffled": own - 5, "trained_vanilla": vanilla, "constant": 30.}
    scores = [(arm, task, 10, x, x - 1, x + 1) for arm, x in arms.items() for task in ("object_counting", "overall")]
    columns = ["arm", "question_type", "n", "score", "ci_low", "ci_high"]
    pd.DataFrame(scores, columns=columns).to_csv(folder/"scores.csv", index=False)
    return str(folder)

def runs_of(tmp_path, **arms):
    rows = [(name, seed, made_up(tmp_path/f"{name}-{seed}", **kw)) for name, kws in arms.items()
            for seed, kw in enumerate(kws)]
    return pd.DataFrame(rows, columns=["arm", "seed", "folder"])

def test_arms_differ_in_what_is_studied_alone():
    s = default_settings("smoke", "tiny-cot", mode="think", steps=2)
    for study, fields in (("modes", {"mode", "rewards", "seed"}), ("kl", {"beta", "lr", "seed"}),
                          ("rewards", {"rewards", "seed"}), ("dynamics", {"seed"}), ("single", {"seed"})):
        arms = studies.study_arms(study, s, 2)
        assert len({a for a, _ in arms})*2 == len(arms) and {a.seed for _, a in arms} == {0, 1}
        changed = {k for _, a in arms for k in vars(s) if getattr(a, k) != getattr(s, k)}
        assert changed <= fields, (study, changed)
    assert [a.beta for n, a in studies.study_arms("kl", s) if "lr" not in n] == [0, 1e-4, 1e-2]

# Findings are tested by their conclusions and numbers, not by their wording.

NUMBER = r"[+-]?\d+(?:\.\d+)?%?"

def numbers(text): return re.findall(rf"(?<![\w.]){NUMBER}(?![\w.]*\w)", text)

def conclusions(sentences): return re.findall(r"\b(?:supports|does not support)\b", " ".join(sentences))

def first_named(sentence, arms): return min((sentence.index(a), a) for a in arms if a in sentence)[1]

@pytest.mark.parametrize("without, penalised, conclusion", [
    ([True]*3, [False]*3, "supports"),
    ([True, True, False], [False]*3, "does not support"),          # one seed without the penalty does not collapse
    ([True]*3, [False, True, False], "does not support"),          # one seed with the penalty collapses
    ([False]*3, [False]*3, "does not support"),
])
def test_the_papers_finding_is_supported_where_every_seed_agrees(tmp_path, without, penalised, conclusion):
    arms = {"β = 0": without, "β = 0.0001": penalised}
    runs = runs_of(tmp_path, **{a: [dict(collapsed=c) for c in seeds] for a, seeds in arms.items()})
    sentences = studies.findings("kl", runs)
    assert conclusions(sentences) == [conclusion]
    for arm, seeds in arms.items(): assert f"{sum(seeds)} of 3 seeds with {arm} (" in sentences[0]

def test_collapses_are_dated_counted_and_measured(tmp_path):
    "The format is lost from step 26, noticed in 28; the last ten steps have KL 0.1 and a format reward of 0.05 or 1."
    collapsed, sound = dict(collapsed=True, own=22.), {}
    arms = {"β = 0": [sound, sound, collapsed], "β = 0.0001": [sound]*3, "β = 0, lr × 4": [collapsed]*3}
    sentences = studies.findings("kl", runs_of(tmp_path, **arms))
    part = {arm: " ".join(sentences).split(f"seeds with {arm} (")[1].split(")")[0] for arm in arms}
    assert numbers(part["β = 0"]) == ["26", "28", "0.1", "0.68", "34.0"]            # (1 + 1 + .05)/3, (40 + 40 + 22)/3
    assert numbers(part["β = 0.0001"]) == ["0.1", "1.00", "40.0"]
    assert numbers(part["β = 0, lr × 4"]) == ["26", "28", "0.1", "0.05", "22.0"]
    assert "format reward fell (4)" in sentences[2]      # the four that collapsed, by what was noted

@pytest.mark.parametrize("own, best", [
    (dict(vanilla=50., think=41., observe=30.), "vanilla"),
    (dict(vanilla=31., think=29., observe=32.5), "observe"),
])
def test_the_best_mode_and_what_thinking_gains(tmp_path, own, best):
    "In vanilla mode, the model trained in think mode scores 35 and the one trained in observe mode 36."
    beside = dict(vanilla=35., think=35., observe=36.)
    runs = runs_of(tmp_path, **{m: [dict(own=x, vanilla=beside[m])] for m, x in own.items()})
    highest, change = studies.findings("modes", runs)
    assert first_named(highest, own) == best
    ours, printed = change.split("paper")
    gains = dict(vanilla=["+6.0", "-6.0"], observe=["-6.0", "-3.5"])[best]      # 41 - 35, 30 - 36; 29 - 35, 32.5 - 36
    assert numbers(ours) == gains and numbers(printed) == ["+3.5", "+3.2"]

def test_readings_are_ranked_and_a_length_reward_is_held_against_its_own(tmp_path):
    "The naive length reward scores higher than any reading, but is not a reading."
    arms = {"linear": dict(own=30.), "ratio": dict(own=33.), "exp": dict(own=31.)}
    arms["ratio + length:naive"] = dict(own=39., tokens=40, tags=.8)
    readings, naive = studies.findings("rewards", runs_of(tmp_path, **{a: [given] for a, given in arms.items()}))
    assert first_named(readings, ("linear", "ratio", "exp")) == "ratio" and "length" not in readings
    assert numbers(readings)[:4] == ["30.0", "33.0", "31.0", "20.0"]                # each reading, the base
    # tokens, extra tags, repetition and score, each of the arm and of the ratio alone
    assert numbers(naive) == ["40", "12", "80%", "0%", "0%", "0%", "39.0", "33.0"]

@pytest.mark.parametrize("given, steps, end, sooner", [
    # means of five steps: the format has .88 in step 12 and .94 in step 13;
    # the accuracy rises from .1 to .5625, of which nine tenths are at .516: step 37
    (dict(accuracy=climb), ["13", "13", "37", "37"], ["1.00", "0.56"], 2),
    (dict(formats=climb, accuracy=soon), ["37", "37", "13", "13"], ["0.56", "1.00"], 0),
    (dict(), ["13", "13"], ["1.00", "0.50"], 2),                                    # an accuracy that never rises
    (dict(formats=lambda k: .5), [], ["0.50", "0.50"], 0),
])
def test_which_reward_is_learnt_first(tmp_path, given, steps, end, sooner):
    [sentence] = studies.findings("dynamics", runs_of(tmp_path, think=[given]*2))
    assert numbers(sentence) == [*steps, *end, str(sooner), "2"]

def test_findings_name_what_was_not_measured(tmp_path):
    runs = runs_of(tmp_path, **{"β = 0": [{}], "β = 0.0001": [{}]})
    assert studies.findings("single", runs) == []
    scores = pd.read_csv(runs.folder[0] + "/scores.csv")
    scores[scores.question_type != "overall"].to_csv(runs.folder[0] + "/scores.csv", index=False)
    for study in ("kl", "modes", "rewards"):
        [sentence] = studies.findings(study, runs)
        assert "overall score" in sentence and not numbers(sentence) and not conclusions([sentence])
    metrics = Run(runs.folder[1]).metrics_path
    lines = [{k: v for k, v in json.loads(line).items() if k != "format"} for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(x) + "\n" for x in lines))
    [sentence] = studies.findings("dynamics", runs[1:])
    assert "format reward" in sentence and not numbers(sentence)

@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_may_be_chance(tmp_path, seeds):
    runs = runs_of(tmp_path, vanilla=[{}]*seeds, think=[{}]*seeds)
    assert ("chance" in studies.findings("modes", runs)[0]) == (seeds == 1)

def test_tables_hold_what_was_run_and_dashes(tmp_path):
    runs = runs_of(tmp_path, think=[dict(own=40.), dict(own=44.)], vanilla=[dict(own=50.)])
    table = studies.arm_table(runs)
    assert table.loc["think", "held-out trained"] == "42.0 [40.0, 44.0]" and table.loc["think", "collapsed"] == "0 of 2"
    assert table.loc["vanilla", "held-out trained"] == "50.0"
    two = results.table_two(runs, paper_table(2))
    overall = {row: two.loc[row, ("overall", "ours")] for row in two.index}
    assert overall["vsGRPO-T", "T"] == "42.0" and overall["vsGRPO-T", "V"] == "35.0" and overall["vsGRPO-O", "O"] == "—"
    assert two.loc[("vsGRPO-V", "V"), ("object_counting", "paper")] == "53.6"
    assert two.loc[("base", "V"), ("object_counting", "paper")] == "21.4"
    metrics = pd.read_json(runs.folder[0] + "/metrics.jsonl", lines=True)
    assert len(studies.plot_arms(runs).axes[0].lines) == 2 + 1 + 2 and len(studies.plot_dynamics(metrics).axes) == 4

def test_a_collapse_is_counted_and_dated(tmp_path):
    "The format is lost from step 26 on; the rule notices it in step 28."
    runs = runs_of(tmp_path, think=[dict(collapsed=True), {}])
    when = "from step 26, noticed in step 28"
    assert studies.arm_table(runs).loc["think", "collapsed"] == f"1 of 2 ({when})"
    noted = (28, "the format reward fell from 1.00 to 0.40", 26)
    assert studies.read_collapse(runs.folder[0]) == noted
    assert studies.read_collapse(runs.folder[1]) == (None, "", None)

def test_a_study_resumes_and_a_route_is_shown_before_and_after(data, tmp_path, monkeypatch):
    s = replace(default_settings("smoke", "tiny-cot", mode="think", steps=2, questions_per_step=2), num_generations=4,
                max_new_tokens=8, probe_every=0)
    arms = [a for a in studies.study_arms("kl", s) if a[0] in ("β = 0", "β = 0.01")]
    monkeypatch.setattr(studies, "study_arms", lambda *a: arms)
    honest = studies.start
    def once(folder, *a):
        if "beta0.01" in str(folder): raise KeyboardInterrupt      # interrupted as the second run begins
        return honest(folder, *a)
    monkeypatch.setattr(studies, "start", once)
    monkeypatch.setattr(studies.os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(KeyboardInterrupt): studies.train_study("kl", s, 1, data, tmp_path/"kl")
    assert not (tmp_path/"kl/scores.csv").is_file()
    [done] = (tmp_path/"kl").glob("*/scores.csv")
    before, started = done.stat().st_mtime_ns, []
    monkeypatch.setattr(studies, "start", lambda folder, *a: started.append(folder) or honest(folder, *a))
    runs = studies.train_study("kl", s, 1, data, tmp_path/"kl", resume=True)
    assert started == [runs.folder[1]] and done.stat().st_mtime_ns == before
    assert (tmp_path/"kl/scores.csv").is_file()
    assert [Run(f).read_settings()["settings"]["beta"] for f in runs.folder] == [0, .01]
    monkeypatch.setattr(studies, "start", lambda *a: pytest.fail("a run that is there was started again"))
    assert studies.train_study("kl", s, 1, data, tmp_path/"kl", resume=True).equals(runs)
    with pytest.raises(ValueError, match="began with other settings: seeds was 1, is 2"):
        studies.train_study("kl", s, 2, data, tmp_path/"kl", resume=True)

    from vsgrpo.engine.models import VideoReader, load_processor
    folder, frames = Path(runs.folder[0]), VideoReader(load_processor("tiny"), s.video).frames
    routes = [q for q in held_out(s, data) if q.question_type == "route_planning"]
    base = {r["id"]: r["prediction"] for r in map(json.loads, (folder/"answers/base.jsonl").read_text().splitlines())}
    won = next(q for q in reversed(routes) if not score_answer(q, base[q.id], "tagged"))
    def answer(**given):
        "Replace every trained answer by markup, except those given."
        path = folder/"answers/trained.jsonl"
        rows = [json.loads(x) for x in path.read_text().splitlines()]
        for r in rows: r["prediction"] = given.get(str(r["id"]), "</td><script>alert(1)</script>")
        write_text("".join(json.dumps(r) + "\n" for r in rows), path)
    answer()
    pages = [before_after(folder, frames, seed=k) for k in range(8)]
    assert "<script>" not in pages[0] and "&lt;script&gt;" in pages[0] and "You are a robot" in pages[0]
    shown = {q.id for page in pages for q in routes if html.escape(q.question) in page}
    assert len(routes) > 1 and len(shown) > 1                    # another seed draws another question
    for k, page in enumerate(pages): assert numbers(page.splitlines()[0]) == [str(k), str(len(routes))]
    answer(**{str(won.id): f"<think>I turn.</think><answer>{won.ground_truth}</answer>"})
    page = before_after(folder, frames, largest_gain=True)
    assert html.escape(won.question) in page and page.count("✓") == page.count("✗") == 1
    assert page.index("✗") < page.index("✓")                    # wrong before the training, right after it
    assert numbers(page.splitlines()[0]) == [str(len(routes))]
    with pytest.raises(ValueError, match="no held-out question of type"): before_after(folder, frames, kind="x")
