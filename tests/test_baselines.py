"SFT and DPO: labels, losses, gradients, sight, resume, tables."
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vsgrpo.data import pairs
from vsgrpo.data.dataset import open_dataset
from vsgrpo.engine import models, sampling, tree_attention, vision_guard
from vsgrpo.engine.models import load_model, load_processor
from vsgrpo.evaluation import generate
from vsgrpo.evaluation.records import Run
from vsgrpo.evaluation.scores import paper_table
from vsgrpo.training import baseline_tables, studies, runs as R, trainer as T
from vsgrpo.training.settings import default_settings


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(4, 2, 2))

def settings(method, **kw):
    return replace(default_settings("smoke", "tiny", method=method, questions_per_step=4),
                   **{"steps": 3, "micro_groups": 4, **kw})

def trainer_of(data, folder, s, record=None):
    return T.make_trainer(s, load_model("tiny", device="cpu"), load_processor("tiny"), data, folder, record)

def batch_of(trainer): return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))

def moved(trainer, seed=0):
    "Move the policy away from its base, so that no term is zero."
    torch.manual_seed(seed)
    for p in trainer.model.parameters():
        if p.requires_grad: p.data += .02*torch.randn_like(p)
    trainer.model.train()
    return trainer

def alone(model, prompt, answer):
    "Log-probabilities of an answer's tokens by the model's own pass over one row."
    core = models.unwrap_model(model)
    ids = torch.tensor([[*prompt.ids, *answer]])
    logits = core(input_ids=ids, mm_token_type_ids=(ids == core.config.video_token_id).int()*2,
                  pixel_values_videos=prompt.video.pixels, video_grid_thw=prompt.video.grid).logits[0]
    return logits.log_softmax(-1)[len(prompt.ids)-1:-1].gather(1, torch.tensor(answer)[:, None])[:, 0]

# ---- labels

@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_labels_are_the_answers_and_nothing_else(data, tmp_path, method):
    trainer = trainer_of(data, tmp_path/"c", settings(method))
    batch, write = batch_of(trainer), trainer.processing_class.tokenizer
    labels = batch["labels"] if method == "sft" else batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    rows = [trainer.question_rows[r] for r in batch["row"].tolist()]
    columns = ["ground_truth"]*4 if method == "sft" else ["chosen"]*4 + ["rejected"]*4
    for line, row, column in zip(labels, rows, columns, strict=True):
        labelled = line[line != -100].tolist()
        assert labelled == write(row[column])["input_ids"] + [write.convert_tokens_to_ids("<|im_end|>")]
        # from the first place behind the prompt's, in a row
        assert (line != -100).nonzero()[:, 0].tolist() == list(range(1, 1 + len(labelled)))
    if method == "dpo":
        assert all(pairs.is_wrong(next(q for q in data.train if str(q.id) == r["id"]), r["rejected"]) for r in rows)

def test_padding_has_no_influence(data, tmp_path):
    trainer = moved(trainer_of(data, tmp_path/"c", settings("sft")))
    batch = batch_of(trainer)
    pad = lambda v, value: torch.nn.functional.pad(v, (0, 5), value=value)
    wide = {k: pad(v, -100 if k == "labels" else 17) if v.ndim == 2 else v for k, v in batch.items()}
    wide["attention_mask"] = pad(batch["attention_mask"], 0)
    with torch.no_grad():
        narrow_loss, wide_loss = (trainer.compute_loss(trainer.model, dict(b)).item() for b in (batch, wide))
    assert narrow_loss == pytest.approx(wide_loss, rel=1e-6)

# ---- losses by hand

def test_sft_is_the_mean_over_answer_tokens_of_plain_passes(data, tmp_path):
    trainer = moved(trainer_of(data, tmp_path/"c", settings("sft")))
    batch = batch_of(trainer)
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    ours = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    logps = [alone(trainer.model, trainer._prompt(r), line[line != -100].tolist())
             for r, line in zip(batch["row"].tolist(), batch["labels"])]
    plain = -torch.cat(logps).mean()
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5) and ours
    for n, p in trainer.model.named_parameters():
        if n in ours: assert (ours[n] - p.grad).norm() <= 1e-4*p.grad.norm() + 1e-7, n

def test_dpo_starts_at_ln_2_and_equals_three_pairs_by_hand(data, tmp_path):
    "Also its gradients: the shared prompt against a plain pass for every answer."
    s = settings("dpo", questions_per_step=3, micro_groups=3, beta=.3)
    trainer = trainer_of(data, tmp_path/"c", s)
    trainer.model.train()
    batch = batch_of(trainer)
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(math.log(2), abs=1e-6)
    moved(trainer)
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    ours = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    answers = [line[m.bool()].tolist() for line, m in zip(batch["input_ids"], batch["completion_mask"])]
    prompts = [trainer._prompt(r) for r in batch["row"].tolist()]
    logps = [alone(trainer.model, p, a).sum() for p, a in zip(prompts, answers)]
    with torch.no_grad(), trainer.model.disable_adapter():
        ref = [alone(trainer.model, p, a).sum() for p, a in zip(prompts, answers)]
    gains = [a - b for a, b in zip(logps, ref)]      # of the chosen, then of the rejected
    by_hand = sum(torch.log1p(torch.exp(-.3*(gains[i] - gains[3+i]))) for i in range(3))/3
    by_hand.backward()
    assert len(answers) == 6 and loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert abs(loss.item() - math.log(2)) > 1e-3
    for n, p in trainer.model.named_parameters():
        if n in ours: assert (ours[n] - p.grad).norm() <= 1e-4*p.grad.norm() + 1e-7, n

def test_the_two_answers_share_their_prompt(data, tmp_path):
    "One pass of the policy and one of the reference, each over the step's videos once."
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c", settings("dpo", steps=1), run).train()
    m = run.read_metrics().iloc[0]
    scenes = {data.train[i].scene_name for i in T.draw_questions(data.train, settings("dpo", steps=1), data.even)}
    assert m.passes == 2 and m.vision_tokens == 2*len(scenes)*72

# ---- sight

@pytest.mark.parametrize("method, where", [("sft", "policy"), ("dpo", "policy"), ("dpo", "reference")])
def test_a_blind_pass_stops_the_run(data, tmp_path, monkeypatch, method, where):
    honest, made = tree_attention.completion_logps, tree_attention.batch_trees
    def without_pixels(model, trees):
        batch = made(model, trees)
        batch.inputs = {k: v for k, v in batch.inputs.items() if k != "pixel_values_videos"}
        return batch
    def blind(model, trees, temperature=1., guard=None, name="policy", more=False):
        for module in (tree_attention, sampling):
            monkeypatch.setattr(module, "batch_trees", without_pixels if name == where else made)
        return honest(model, trees, temperature, guard, name, more)
    monkeypatch.setattr(T, "completion_logps", blind)
    with pytest.raises(vision_guard.BlindError, match=f"{where}: the vision tower was not called"):
        trainer_of(data, tmp_path/"c", settings(method)).train()

def test_another_rooms_frames_stop_the_run(data, tmp_path, monkeypatch):
    trainer, made = trainer_of(data, tmp_path/"c", settings("sft")), tree_attention.batch_trees
    def other(model, trees):
        batch = made(model, trees)
        batch.inputs["pixel_values_videos"] = batch.inputs["pixel_values_videos"].flip(0)
        return batch
    for module in (tree_attention, sampling): monkeypatch.setattr(module, "batch_trees", other)
    with pytest.raises(vision_guard.BlindError, match="policy: .* patches that are not those"): trainer.train()

# ---- runs

@pytest.mark.parametrize("method", [pytest.param("sft", marks=pytest.mark.slow), "dpo"])
def test_a_killed_run_resumes_with_byte_identical_results(data, tmp_path, root, method):
    s = settings(method, steps=30, save_every=4, curve_every=6, curve_scenes=0, pairs="sampled")
    code = ("import sys; from vsgrpo.training import runs as R; s, data = R.read_run(sys.argv[1]); "
            "R.train(s, data, sys.argv[1], resume=True)")
    whole, cut = tmp_path/"whole", tmp_path/"cut"
    for folder in (whole, cut): R.begin(s, data, folder)
    R.train(s, data, whole, resume=True)
    env, begin = dict(os.environ, PYTHONPATH=str(root)), time.time()
    first = subprocess.Popen([sys.executable, "-c", code, str(cut)], env=env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    while not (cut/"metrics.jsonl").is_file() or (cut/"metrics.jsonl").read_text().count("\n") < 10:
        assert first.poll() is None and time.time() - begin < 300, first.stderr.read().decode()[-2000:]
        time.sleep(.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (cut/"adapter").exists()
    R.train(s, data, cut, resume=True)
    def untimed(table):
        return table.drop(columns=[c for c in table if c.startswith("seconds/") or c == "videos_encoded"]).to_json()
    assert untimed(Run(whole).read_metrics()) == untimed(Run(cut).read_metrics())
    assert untimed(Run(whole).read_curve()) == untimed(Run(cut).read_curve())
    assert Run(whole).read_curve().step.tolist() == [0, 6, 12, 18, 24, 30]
    for name in ("adapter/adapter_model.safetensors", *(["pairs.jsonl"] if method == "dpo" else [])):
        assert (whole/name).read_bytes() == (cut/name).read_bytes(), name

def test_sampled_pairs_are_the_models_own_and_wrong(data, tmp_path):
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c", settings("dpo", pairs="sampled"), run)
    made = [json.loads(line) for line in (tmp_path/"run/pairs.jsonl").read_text().splitlines()]
    by_id = {q.id: q for q in data.train}
    assert "sampled" in {p["source"] for p in made}
    for p in made:
        question = by_id[p["id"]]
        assert pairs.is_wrong(question, p["rejected"]) and p["chosen"] == question.ground_truth
    path = tmp_path/"run/pairs.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="pairs that are not those"):
        trainer_of(data, tmp_path/"d", settings("dpo", pairs="sampled"), run)

def test_evaluations_during_training_change_nothing(data, tmp_path):
    metrics = []
    for every in (0, 1):
        run = Run(tmp_path/f"run{every}")
        trainer_of(data, tmp_path/f"c{every}", settings("sft", curve_every=every), run).train()
        metrics.append(run.read_metrics())
    without, evaluated = metrics
    for name in ("loss", "grad_norm", "passes"): assert without[name].equals(evaluated[name]), name
    assert run.read_curve().questions.tolist() == [0, 4, 8, 12] and not (tmp_path/"run0/curve.jsonl").exists()
    questions = generate.some_scenes(data.dev, settings("sft").curve_scenes)
    assert run.read_curve().n.tolist() == [len(questions)]*4
    assert run.read_curve().rooms.tolist() == [len({q.scene_name for q in questions})]*4

def test_what_a_method_cannot_do_is_refused():
    for kw, words in ((dict(method="sft", mode="think"), "hold answers and no thoughts"),
                      (dict(method="dpo", beta=0), "learns nothing"), (dict(method="ppo"), "grpo"),
                      (dict(pairs="bad"), "sampled")):
        with pytest.raises(ValueError, match=words): T.Settings(**kw)
    assert default_settings("default", "tiny", method="dpo").beta == 1
    assert default_settings("default", "tiny", method="grpo").beta == 1e-4

# ---- tables

def made_up(tmp_path, **overall):
    "Runs without a model: only scores."
    rows = []
    for arm, values in overall.items():
        for seed, trained in enumerate(values):
            folder = tmp_path/f"{arm}-{seed}"
            folder.mkdir(parents=True)
            scores = [(shown, task, 10, x, x - 2, x + 2)
                      for shown, x in (("base", 30.), ("trained", trained), ("trained_shuffled", trained - 9))
                      for task in ("object_counting", "overall")]
            columns = ["arm", "question_type", "n", "score", "ci_low", "ci_high"]
            pd.DataFrame(scores, columns=columns).to_csv(folder/"scores.csv", index=False)
            rows.append((arm.replace("_", " "), seed, str(folder)))
    return pd.DataFrame(rows, columns=["arm", "seed", "folder"])

def test_table_two_is_written_from_runs(tmp_path, monkeypatch):
    one = baseline_tables.baseline_table(made_up(tmp_path/"one", SFT=[40.], DPO_other=[33.]), paper_table(2))
    assert one.loc[("SFT", "ours"), "overall"] == "40.0 [38.0, 42.0]"
    assert one.loc[("base", "ours"), "object_counting"] == "30.0 [28.0, 32.0]"
    assert one.loc[("DPO other", "paper"), "overall"] == "23.9"
    assert one.loc[("SFT", "ours"), "overall, other room's video"] == "31.0 [29.0, 33.0]"
    assert ("vsGRPO-V", "ours") not in one.index
    monkeypatch.setattr(baseline_tables, "paper_model", lambda model: f"Qwen2-VL-{model}")
    runs = made_up(tmp_path/"three", SFT=[40., 42., 44.])
    three = baseline_tables.baseline_table(runs, paper_table(2), "7B").overall
    assert three["SFT", "ours"] == "42.0 [37.0, 47.0]" and three["SFT", "paper"] == "38.1"
    mean, low, _ = baseline_tables.t_interval([1., 2.])
    assert mean == 1.5 and np.isnan(low)

def test_sentences_follow_the_numbers(tmp_path, monkeypatch):
    runs = made_up(tmp_path, SFT=[40.], vsGRPO_V=[45.]).replace({"vsGRPO V": "vsGRPO-V"})
    d = {("SFT", "base"): (10., 8., 12.), ("vsGRPO-V", "base"): (15., 12., 17.), ("vsGRPO-V", "SFT"): (5., -1., 9.)}
    monkeypatch.setattr(baseline_tables, "difference", lambda runs, a, b, task="overall": d[a, b])
    base, others = baseline_tables.baseline_findings(runs, paper_table(2))
    assert "SFT beats the base by 10.0 points [8.0, 12.0] (paper: +6.3)" in base
    assert "vsGRPO-V does not differ significantly from SFT: +5.0 [-1.0, +9.0] (paper: +5.8)" in others
    d["vsGRPO-V", "SFT"] = (5., 1., 9.)
    assert "vsGRPO-V beats SFT by 5.0 points [1.0, 9.0]" in baseline_tables.baseline_findings(runs, paper_table(2))[1]

def test_curves_name_their_rooms_and_have_a_band(tmp_path):
    def runs_with(**overall):
        rows = []
        for arm, seeds in overall.items():
            for seed, scores in enumerate(seeds):
                run = Run(tmp_path/f"{arm}-{len(seeds)}-{seed}")
                for step, x in enumerate(scores):
                    seen = {"questions": 4*step, "seconds/training": 2.*step, "n": 138, "rooms": 16}
                    run.log_curve(step, seen | {"overall": x, "overall/low": x - 3, "overall/high": x + 4})
                rows.append((arm, seed, str(run.folder)))
        return pd.DataFrame(rows, columns=["arm", "seed", "folder"])
    one = baseline_tables.read_curves(runs_with(SFT=[[30., 40.]]))
    figure = baseline_tables.plot_curves_of(one, baseline_tables.paper_overall(paper_table(2)))
    ax, caption = figure.axes[0], figure.get_supxlabel()
    assert "16 development rooms, 138 questions" in caption and "Band: 95 % interval over rooms, one seed" in caption
    dashed = {line.get_label(): line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"}
    assert dashed == {"base, paper": 23.3, "SFT, paper": 29.6}
    low, high = (f(p.vertices[:, 1]) for p in [ax.collections[0].get_paths()[0]] for f in (min, max))
    assert (low, high) == (27, 44)
    several = baseline_tables.read_curves(runs_with(SFT=[[30., 40.], [30., 42.], [30., 44.]]))
    end = baseline_tables.curve_band(several).loc[1, ["overall", "low", "high"]]
    assert end.tolist() == pytest.approx([42, 37.0317, 46.9683], abs=1e-3)          # ± t(.975, 2)·2/√3, t = 4.3027
    old = Run(tmp_path/"old")
    old.log_curve(0, {"questions": 0, "seconds/training": 0., "overall": 30.})    # of an earlier version
    curves = baseline_tables.read_curves(pd.DataFrame([("SFT", 0, str(old.folder))], columns=["arm", "seed", "folder"]))
    caption = baseline_tables.plot_curves_of(curves).get_supxlabel()
    assert "development rooms" in caption and curves.low.isna().all()

def test_two_seeds_are_both_counted(data, monkeypatch):
    "The mean of both differences, with the interval of that mean over the same draws of rooms; not the first seed's."
    s, questions = settings("sft"), data.test
    right, none = {q.id: q.ground_truth for q in questions}, {q.id: "" for q in questions}
    answers = {"a0": right, "a1": none, "a2": right}
    monkeypatch.setattr(studies, "read_run", lambda folder: (s, data))
    monkeypatch.setattr(studies, "held_out", lambda s, data: questions)
    monkeypatch.setattr(studies, "read_predictions", lambda s, data, folder: {"trained": answers[folder], "base": none})
    made = lambda n: pd.DataFrame([("SFT", k, f"a{k}") for k in range(n)], columns=["arm", "seed", "folder"])
    task = questions[0].task
    assert studies.difference(made(1), "SFT", "base", task) == (100, 100, 100)
    assert studies.difference(made(2), "SFT", "base", task) == (50, 50, 50)
    three = studies.difference(made(3), "SFT", "base", task)      # over seeds: ± t(.975, 2)·57.735/√3, t = 4.3027
    assert three == pytest.approx((66.6667, -76.7551, 210.0884), abs=1e-3)

def test_without_an_interval_nothing_is_claimed(tmp_path, monkeypatch):
    runs = made_up(tmp_path, SFT=[40.], vsGRPO_V=[45.]).replace({"vsGRPO V": "vsGRPO-V"})
    monkeypatch.setattr(baseline_tables, "difference", lambda *a, **kw: (5., np.nan, np.nan))
    for sentence in baseline_tables.baseline_findings(runs, paper_table(2)):
        assert "by +5.0 points (no interval)" in sentence and "beats" not in sentence

def test_constant_answers_of_the_methods_are_shown(tmp_path):
    from vsgrpo.evaluation.generate import answer_warnings, spread_table
    runs = made_up(tmp_path, SFT=[40., 41.], DPO_other=[33.])
    assert answer_warnings(baseline_tables.answer_rows(runs)) == []       # scores.csv of an earlier version
    for folder, share in zip(runs.folder, (.95, .97, .4)):
        spread = dict(counted=1260, top_answer="A", top_share=share, distinct=4, truth_top_share=.31, truth_distinct=4)
        pd.read_csv(folder + "/scores.csv").assign(**spread).to_csv(folder + "/scores.csv", index=False)
    rows = baseline_tables.answer_rows(runs)
    assert spread_table(rows).loc["overall"].tolist() == ["A: 95 % (4)", "A: 95–97 % (4)", "A: 40 % (4)", "31 % (4)"]
    truth = "(the truth's most frequent answer: 31 %)"
    warning = f"SFT gives one answer to 95–97 % of 1,260 choice questions in 2 of 2 seeds {truth}."
    assert warning in answer_warnings(rows)
