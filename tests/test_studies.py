"Arms of a study, their tables, and sentences that follow the numbers; the runs are made up, but for one."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vsgrpo.files import write_json, write_text
from vsgrpo import studies
from vsgrpo import trainer as T
from vsgrpo.rollouts import Run
from vsgrpo.vsi100k import open_dataset
from vsgrpo.vsibench import paper_table


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))


def made_up(folder, falls=False, own=40., vanilla=35., tokens=12, tags=0., kl=.1, steps=40, slow=False):
    "A run folder without a model."
    run = Run(folder)
    if falls: write_json(dict(step=28, reason="the format reward fell from 1.00 to 0.40", action="note"), folder/"collapse.json")
    for k in range(steps):
        good = min(1., k/10) if not falls or k < 25 else .05
        accuracy = .1 + .5*k/steps if slow else .5
        run.log_metrics(k + 1, {"reward": good + accuracy, "accuracy": accuracy, "accuracy/object_counting": accuracy, "format": good, "kl": kl, "entropy": 1., "completion_tokens": tokens, "zero_variance_groups": .1, "same": .1, "loss": 0., "hacks/extra tags": tags, "hacks/repetition": 0.})
    pd.DataFrame([(arm, t, 10, s, s - 1, s + 1) for arm, s in (("base", 20.), ("trained", own), ("trained_shuffled", own - 5), ("trained_vanilla", vanilla), ("constant", 30.)) for t in ("object_counting", "overall")],
                 columns=["arm", "question_type", "n", "score", "ci_low", "ci_high"]).to_csv(folder/"scores.csv", index=False)
    return str(folder)

def runs_of(tmp_path, **arms):
    return pd.DataFrame([(name, seed, made_up(tmp_path/f"{name}-{seed}", **kw)) for name, kws in arms.items() for seed, kw in enumerate(kws)], columns=["arm", "seed", "folder"])

def test_arms_differ_in_what_is_studied_alone():
    s = T.settle("smoke", "tiny-cot", mode="think", steps=2)
    for study, fields in (("modes", {"mode", "rewards", "seed"}), ("kl", {"beta", "lr", "seed"}), ("rewards", {"rewards", "seed"}), ("dynamics", {"seed"}), ("single", {"seed"})):
        arms = studies.study_arms(study, s, 2)
        assert len({a for a, _ in arms})*2 == len(arms) and {a.seed for _, a in arms} == {0, 1}
        changed = {k for _, a in arms for k in vars(s) if getattr(a, k) != getattr(s, k)}
        assert changed <= fields, (study, changed)
    assert [a.beta for n, a in studies.study_arms("kl", s) if "lr" not in n] == [0, 1e-4, 1e-2]

def test_the_kl_sentence_follows_the_numbers(tmp_path):
    fell, well = dict(falls=True), {}
    shown = runs_of(tmp_path/"a", **{"β = 0": [fell]*3, "β = 0.0001": [well]*3})
    assert "is shown at this scale" in studies.findings("kl", shown)[0] and "format reward fell (3)" in " ".join(studies.findings("kl", shown))
    not_shown = runs_of(tmp_path/"b", **{"β = 0": [well, well, fell], "β = 0.0001": [well]*3, "β = 0, lr × 4": [fell]*3})
    told = studies.findings("kl", not_shown)
    assert "1 of 3 seeds with β = 0 (from step 26, noticed in step 28; KL" in told[0] and "is not shown at this scale" in told[0] and "3 of 3 seeds with β = 0, lr × 4" in told[1]

def test_the_other_sentences_follow_the_numbers(tmp_path):
    modes = studies.findings("modes", runs_of(tmp_path/"m", vanilla=[dict(own=50.)], think=[dict(own=41.)], observe=[dict(own=30., vanilla=36.)]))
    assert "in vanilla mode scores highest" in modes[0] and "+6.0 (think)" in modes[1] and "-6.0 (observe)" in modes[1]
    rewards = studies.findings("rewards", runs_of(tmp_path/"r", linear=[dict(own=30.)], ratio=[dict(own=33.)], **{"ratio + length:naive": [dict(tokens=40, tags=.8)]}))
    assert "ratio scores highest" in rewards[0] and "40 tokens a completion instead of 12, extra tags in 80% instead of 0%" in rewards[1]
    dynamics = studies.findings("dynamics", runs_of(tmp_path/"d", think=[dict(slow=True)]*2))
    assert "sooner in 2 of 2 seeds" in dynamics[0] and studies.findings("single", runs_of(tmp_path/"s", run=[{}])) == []

def test_what_was_not_measured_is_said(tmp_path):
    runs = runs_of(tmp_path, **{"β = 0": [{}], "β = 0.0001": [{}]})
    scores = pd.read_csv(runs.folder[0] + "/scores.csv")
    scores[scores.question_type != "overall"].to_csv(runs.folder[0] + "/scores.csv", index=False)
    assert "no overall score" in studies.findings("kl", runs)[0] and "no overall score" in studies.findings("modes", runs)[0]
    metrics = Run(runs.folder[1]).metrics_path
    metrics.write_text("".join(json.dumps({k: v for k, v in json.loads(line).items() if k != "format"}) + "\n" for line in metrics.read_text().splitlines()))
    assert studies.findings("dynamics", runs[1:])[0] == "Nothing to say: format reward was not paid in every arm."
    assert "chance" in studies.findings("modes", runs_of(tmp_path/"one", vanilla=[{}], think=[{}]))[0] and "chance" not in studies.findings("modes", runs_of(tmp_path/"two", vanilla=[{}]*2, think=[{}]*2))[0]

def test_tables_hold_what_was_run_and_dashes(tmp_path):
    runs = runs_of(tmp_path, think=[dict(own=40.), dict(own=44.)], vanilla=[dict(own=50.)])
    table = studies.arm_table(runs)
    assert table.loc["think", "held-out trained"] == "42.0 [40.0, 44.0]" and table.loc["vanilla", "held-out trained"] == "50.0" and table.loc["think", "collapsed"] == "0 of 2"
    two = studies.table_two(runs, paper_table(2))
    assert two.loc[("vsGRPO-T", "T"), ("overall", "ours")] == "42.0" and two.loc[("vsGRPO-T", "V"), ("overall", "ours")] == "35.0" and two.loc[("vsGRPO-O", "O"), ("overall", "ours")] == "—"
    assert two.loc[("vsGRPO-V", "V"), ("object_counting", "paper")] == "53.6" and two.loc[("base", "V"), ("object_counting", "paper")] == "21.4"
    fell = runs_of(tmp_path/"fell", think=[dict(falls=True), {}])
    assert studies.arm_table(fell).loc["think", "collapsed"] == "1 of 2 (from step 26, noticed in step 28)"       # gone from step 26 on; the rule speaks in 28
    assert studies.read_collapse(fell.folder[0]) == (28, "the format reward fell from 1.00 to 0.40", 26) and studies.read_collapse(fell.folder[1]) == (None, "", None)
    assert len(studies.plot_arms(runs).axes[0].lines) == 2 + 1 + 2 and len(studies.plot_dynamics(pd.read_json(runs.folder[0] + "/metrics.jsonl", lines=True)).axes) == 4

def test_a_study_goes_on_and_shows_a_route_before_and_after(data, tmp_path, monkeypatch):
    s = replace(T.settle("smoke", "tiny-cot", mode="think", steps=2, questions_per_step=2), num_generations=4, max_new_tokens=8, probe_every=0)
    arms = [a for a in studies.study_arms("kl", s) if a[0] in ("β = 0", "β = 0.01")]
    monkeypatch.setattr(studies, "study_arms", lambda *a: arms)
    honest = studies.start
    def once(folder, *a):
        if "beta0.01" in str(folder): raise KeyboardInterrupt      # interrupted as the second run begins
        return honest(folder, *a)
    monkeypatch.setattr(studies, "start", once)
    monkeypatch.setattr(studies.os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(KeyboardInterrupt): studies.run_study("kl", s, 1, data, tmp_path/"kl")
    assert not (tmp_path/"kl/scores.csv").is_file() and len(done := list((tmp_path/"kl").glob("*/scores.csv"))) == 1
    before, started = done[0].stat().st_mtime_ns, []
    monkeypatch.setattr(studies, "start", lambda folder, *a: started.append(folder) or honest(folder, *a))
    runs = studies.run_study("kl", s, 1, data, tmp_path/"kl", resume=True)
    assert started == [runs.folder[1]] and done[0].stat().st_mtime_ns == before
    assert (tmp_path/"kl/scores.csv").is_file() and [Run(f).read_settings()["settings"]["beta"] for f in runs.folder] == [0, .01]
    monkeypatch.setattr(studies, "start", lambda *a: pytest.fail("a run that is there was started again"))
    assert studies.run_study("kl", s, 1, data, tmp_path/"kl", resume=True).equals(runs)
    with pytest.raises(ValueError, match="began with other settings: seeds was 1, is 2"): studies.run_study("kl", s, 2, data, tmp_path/"kl", resume=True)
    path = tmp_path/"kl"/runs.folder[0].split("/")[-1]/"answers/trained.jsonl"
    rows = [json.loads(x) | {"prediction": "</td><script>alert(1)</script>"} for x in path.read_text().splitlines()]
    write_text("".join(json.dumps(r) + "\n" for r in rows), path)
    from vsgrpo.models import VideoReader, load_processor
    frames = VideoReader(load_processor("tiny"), s.video).frames
    page = studies.before_after(runs.folder[0], frames)
    assert "<script>" not in page and "&lt;script&gt;" in page and "You are a robot" in page and np.all([x in page for x in ("base", "trained")])
    n = page.split(" questions of type")[0].split()[-1]
    assert f"Drawn by seed 0 from {n} questions of type route_planning." in page
    pages = {studies.before_after(runs.folder[0], frames, seed=k).replace(f"seed {k}", "") for k in range(8)}
    assert len(pages) > 1 or n == "1"
    assert f"Chosen as the largest gain of {n} questions of type route_planning." in studies.before_after(runs.folder[0], frames, largest_gain=True)
    with pytest.raises(ValueError, match="no held-out question of type"): studies.before_after(runs.folder[0], frames, "x")
