"The trainer sees and records, stops when it is blind, and resumes after a kill."
import json
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from vsgrpo.engine import tree_attention, vision_guard, sampling, prefix_tree
from vsgrpo.training.objective import group_advantages
from vsgrpo.training.settings import default_settings
from vsgrpo.training import (adapters, callbacks, explorer, rewards, run_page, run_process as P, runs as R, sharing,
                             studies, trainer as T)
from vsgrpo.training.before_after import before_after
from vsgrpo.files import commit_folder, read_json, write_json
from vsgrpo.engine.models import TINY, load_model, load_processor
from vsgrpo.evaluation.records import Run, choose_folder
from vsgrpo.engine.video import encode
from vsgrpo.data.dataset import open_dataset

@pytest.fixture(scope="module")
def data(built_rooms):
    "Six generated rooms, written, read back and split."
    return open_dataset(built_rooms(3, 1, 2))

def settings(**kw):
    model = "tiny" if kw.get("mode", "vanilla") == "vanilla" else "tiny-cot"
    return replace(default_settings("smoke", model, mode=kw.get("mode")),
                   **{"num_generations": 4, "max_new_tokens": 6, "probe_every": 0, **kw})

def trainer_of(data, folder, s=None, record=None):
    s = s or settings()
    return T.make_trainer(s, load_model(s.model, device="cpu"), load_processor(s.model), data, folder, record)

def test_what_does_not_train_imports_no_trl(root):
    "Settings, the budget, reading a run and the command's help are there at once: trl takes seconds to import."
    names = [f"vsgrpo.training.{name}" for name in ("settings", "batches", "budget", "runs", "studies", "explorer",
                                                    "sharing")]
    code = f"import sys; import vsgrpo.doctor, vsgrpo.general_eval, {', '.join(names)}; " \
           "print([m for m in ('trl', 'transformers', 'torch', 'datasets') if m in sys.modules])"
    call = subprocess.run([sys.executable, "-c", code], env=dict(os.environ, PYTHONPATH=str(root)), check=True,
                          capture_output=True, text=True)
    assert call.stdout.strip() == "[]"

def test_a_run_leaves_its_whole_record(data, tmp_path):
    s = settings(steps=2)
    model, processor = R.train(s, data, tmp_path/"run")
    R.evaluate(s, model, processor, data, tmp_path/"run")
    written = json.loads((tmp_path/"run/run.json").read_text())
    assert written["settings"]["beta"] == 1e-4 and written["video_spec"]["frames"] == 4
    assert written["dataset"]["questions"] == len(data.train)
    metrics, rollouts = Run(tmp_path/"run").read_metrics(), Run(tmp_path/"run").read_rollouts()
    assert metrics.step.tolist() == [1, 2] and len(rollouts) == 2*s.questions_per_step*s.num_generations
    assert {"reward", "accuracy", "kl", "entropy", "completion_tokens", "zero_variance_groups", "grad_norm",
            "seconds/rollout",
            "seconds/policy", "seconds/reference", "seconds/step", "vision_tokens"} <= set(metrics)
    for _, group in rollouts.groupby(["step", "id"]):
        r = torch.tensor(group.reward.to_numpy())
        torch.testing.assert_close(torch.tensor(group.advantage.to_numpy()), group_advantages(r[None])[0], atol=1e-4,
                                   rtol=1e-3)
    scores = (tmp_path/"run/scores.csv").read_text()
    assert all(arm in scores for arm in ("base", "trained", "trained_shuffled", "constant"))
    sharing.write_card(tmp_path/"run")
    load_model("tiny", tmp_path/"run/adapter")          # its card is in the manifest too
    assert (tmp_path/"run/adapter/adapter_model.safetensors").is_file()
    assert {f.suffix for f in (tmp_path/"run/adapter").iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    for path in (tmp_path/"run/adapter").iterdir():
        assert not {p for p in (str(tmp_path), str(TINY.parent)) if p.encode() in path.read_bytes()}, path
    # of a killed process
    left = [tmp_path/"run/run.json.7.9.tmp", tmp_path/"run/answers/base.jsonl.7.9.tmp", tmp_path/"run/adapter.7.9.tmp"]
    left[1].parent.mkdir(exist_ok=True)
    for path in left: path.write_text("half")
    R.run_training(s, data, tmp_path/"run")
    assert not list((tmp_path/"run").rglob("*.tmp"))

def test_vision_tokens_are_counted_in_every_pass(data, tmp_path):
    "Rollout, reference and policy: three passes a step, each over the videos of the step's questions."
    run = Run(tmp_path/"run")
    trainer = trainer_of(data, tmp_path/"c", settings(steps=2, questions_per_step=2, micro_groups=2), run)
    trainer.train()
    rows, metrics = run.read_rollouts(), run.read_metrics()
    per_video, passes = 2*6*6, []
    for _, step in rows.groupby("step"):
        questions = step.drop_duplicates("id")
        passes.append(3*per_video*questions.scene_name.nunique())
    assert metrics.vision_tokens.tolist() == passes and metrics.passes.tolist() == [3, 3]

def test_questions_of_a_scene_stand_together(data):
    s = settings(steps=9, questions_per_step=6, micro_groups=6, questions_per_scene=3)
    order = T.draw_questions(data.train, s, data.even)
    def changes(order):
        scene = [data.train[i].scene_name for i in order]
        return sum(a != b for a, b in zip(scene, scene[1:]))
    steps = [order[i:i+6] for i in range(0, len(order), 6)]
    assert len(steps) == 9 and all(len(set(x)) == 6 for x in steps)
    assert changes(order) < .6*changes(T.draw_questions(data.train, replace(s, questions_per_scene=1), data.even))
    whole = data.round_size//6*6
    assert len(set(order[:whole])) == whole == len(set(order[whole:2*whole]))
    again = T.draw_questions(data.train, s, data.even)
    assert order == again != T.draw_questions(data.train, replace(s, seed=1), data.even)

def test_micro_batches_give_the_same_gradient(data, tmp_path, monkeypatch):
    "One pass over four groups, or four passes of one group with accumulation: the same update of the same answers."
    def fixed(model, prompts, n, *a, **kw):
        answers = [[[100 + (sum(p.ids) + 7*i) % 50 + k for k in range(1 + i)] for i in range(n)] for p in prompts]
        return answers, [[[0.]*len(a) for a in group] for group in answers]
    monkeypatch.setattr(T, "sample_answers", fixed)
    monkeypatch.setattr(T, "check_gap", lambda *a, **kw: 0.)                  # these answers are of no policy
    monkeypatch.setattr(rewards, "accuracy_reward", lambda completions, **kw: [float(len(c) % 5) for c in completions])
    def update(micro):
        run = Run(tmp_path/f"run{micro}")
        trainer = trainer_of(data, tmp_path/f"c{micro}", settings(steps=1, questions_per_step=4, micro_groups=micro),
                             run)
        # nothing is rolled out here
        monkeypatch.setattr(trainer.guard, "expect", lambda videos, where: nullcontext())
        trainer.train()
        return run.read_metrics().grad_norm.iloc[0], run.read_rollouts().completion.tolist()
    (one, texts), (four, texts_too) = update(4), update(1)
    assert texts == texts_too and one > 0 and abs(one - four) < 1e-4*one

def test_the_settings_of_large_models_run(data, tmp_path):
    "One group a pass, accumulation, checkpointed activations: what 2B and 7B use."
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c", settings(steps=2, questions_per_step=2, micro_groups=1,
                                            gradient_checkpointing=True), run).train()
    metrics = run.read_metrics()
    assert metrics.step.tolist() == [1, 2] and metrics.kl.iloc[0] < 1e-6 and metrics.grad_norm.notna().all()

def test_features_dropped_from_the_update_stop_the_run(data, tmp_path, monkeypatch):
    honest = tree_attention.batch_trees
    def blind(model, trees):
        batch = honest(model, trees)
        if trees[0].answers[0][0]:          # a rollout's answers are still empty
            for k in ("pixel_values_videos", "video_grid_thw"): batch.inputs.pop(k)
        return batch
    for module in (tree_attention, sampling): monkeypatch.setattr(module, "batch_trees", blind)
    with pytest.raises(vision_guard.BlindError, match="reference: the vision tower was not called"):
        trainer_of(data, tmp_path/"c").train()

def test_another_rooms_video_stops_the_run(data, tmp_path):
    trainer = trainer_of(data, tmp_path/"c")
    honest, videos = trainer.reader, sorted({q.video for q in data.train})
    def next_video(path):
        i = videos.index(str(path)[len(str(data.folder)) + 1:])
        return honest(str(data.folder/videos[(i + 1) % len(videos)]))
    trainer.reader = next_video
    with pytest.raises(ValueError, match="asks about .* but was given"): trainer.train()

def test_a_question_whose_answers_belong_to_another_stops_the_run(data, tmp_path):
    trainer = trainer_of(data, tmp_path/"c", settings(questions_per_step=2, micro_groups=2, seed=1))
    honest = trainer._generate_and_score_completions
    def mixed(inputs):
        out = honest(inputs)
        out["row"] = out["row"].flip(0)
        return out
    trainer._generate_and_score_completions = mixed
    with pytest.raises(ValueError, match="carries the prompt of another question"): trainer.train()

def test_a_blanked_video_stops_the_run(data, tmp_path):
    trainer = trainer_of(data, tmp_path/"c")
    grey = tmp_path/"grey.mp4"
    encode(np.full((8, 112, 112, 3), 127, np.uint8), grey)
    frames = trainer.reader.frames
    trainer.reader.frames = lambda path, spec: frames(grey, spec)
    with pytest.raises(ValueError, match="blank: its pixels vary by 0 of 255 levels"): trainer.train()

def test_frames_blanked_between_rollout_and_update_stop_the_run(data, tmp_path, monkeypatch):
    honest = tree_attention.batch_trees
    def grey(model, trees):
        batch = honest(model, trees)
        if trees[0].answers[0][0]:
            batch.inputs["pixel_values_videos"] = torch.zeros_like(batch.inputs["pixel_values_videos"])
        return batch
    for module in (tree_attention, sampling): monkeypatch.setattr(module, "batch_trees", grey)
    with pytest.raises(vision_guard.BlindError, match="reference: .* patches that are not those"):
        trainer_of(data, tmp_path/"c").train()

def checkpoints(folder, *steps):
    "Checkpoint folders as a run leaves them."
    for step in steps:
        (c := folder/f"checkpoints/checkpoint-{step}").mkdir(parents=True)
        for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                     "trainer_state.json"):
            (c/name).write_bytes(bytes(3000))
        commit_folder(c)

def test_a_torn_checkpoint_is_passed_over(tmp_path):
    checkpoints(tmp_path, 10, 20, 30)
    assert R.last_checkpoint(tmp_path) == (tmp_path/"checkpoints/checkpoint-30", 30)
    assert R.last_checkpoint(tmp_path, 29, every=20)[1] == 20 and R.last_checkpoint(tmp_path, 29, every=15) == (None, 0)
    (tmp_path/"checkpoints/checkpoint-old").mkdir()
    (tmp_path/"checkpoints/checkpoint-40").write_text("a file")
    (tmp_path/"checkpoints/checkpoint-30/manifest.json").unlink()        # killed before its end
    with pytest.warns(UserWarning, match="checkpoint-30: no manifest.json, so it was not completely written"):
        assert R.last_checkpoint(tmp_path)[1] == 20

@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                                  "trainer_state.json", "manifest.json"])
@pytest.mark.parametrize("harm",
                         [lambda b: b[:-700], lambda b: b[:500] + bytes(len(b) - 501) + b"x", lambda b: b"", None],
                         ids=["cut", "changed", "empty", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(tmp_path, name, harm):
    checkpoints(tmp_path, 10, 20)
    path = tmp_path/"checkpoints/checkpoint-20"/name
    if harm: path.write_bytes(harm(path.read_bytes()))
    else: path.unlink()
    with pytest.warns(UserWarning,
                      match="a checkpoint is passed over: "
                            f".*checkpoint-20.*{'manifest' if name == 'manifest.json' else name}"):
        assert R.last_checkpoint(tmp_path)[1] == 10

def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(data, tmp_path, monkeypatch):
    "And ends as if nothing had been; damage in the adapter of a finished run is named too."
    s = settings(steps=6, save_every=2, questions_per_step=2)
    R.train(s, data, tmp_path/"whole")
    honest = T.Run.log_metrics
    def killed(self, step, metrics):
        if step == 5: raise KeyboardInterrupt
        honest(self, step, metrics)
    monkeypatch.setattr(T.Run, "log_metrics", killed)
    with pytest.raises(KeyboardInterrupt): R.train(s, data, tmp_path/"cut")
    monkeypatch.setattr(T.Run, "log_metrics", honest)
    weights = tmp_path/"cut/checkpoints/checkpoint-4/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000] + bytes(2000))
    with pytest.warns(UserWarning, match="checkpoint-4/adapter_model.safetensors: its content is not what was written"):
        R.train(s, data, tmp_path/"cut", resume=True)
    same_record(tmp_path/"whole", tmp_path/"cut")
    assert (tmp_path/"cut/checkpoints/damaged-checkpoint-4").is_dir()
    weights = tmp_path/"cut/adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2000] + bytes(2000))
    with pytest.raises(ValueError, match="its adapter is damaged: .*adapter_model.safetensors"):
        R.train(s, data, tmp_path/"cut", resume=True)
    with pytest.raises(ValueError, match="is damaged: .*adapter_model.safetensors"):
        load_model("tiny", tmp_path/"cut/adapter")

def without_film_hashes(folder, to):
    "A dataset as an earlier builder left it, which kept no hashes of its films."
    shutil.copytree(folder, to)
    note = read_json(to/"dataset.json")
    write_json({k: v for k, v in note.items() if k != "films"}, to/"dataset.json")
    return to

def test_films_are_those_of_the_dataset_as_built(data, tmp_path):
    folder = shutil.copytree(data.folder, tmp_path/"data")
    first, second = sorted((folder/"generated").glob("*.mp4"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError,
                       match="1 of 5 films are not those that the dataset was built with, the first "
                             f"generated/{first.name}"):
        R.begin(settings(steps=1), open_dataset(folder), tmp_path/"run")
    rows = folder/"test.parquet"
    shutil.copy(folder/"dev.parquet", rows)
    with pytest.raises(ValueError, match="test.parquet is not the file that was built"): open_dataset(folder)

def test_a_run_does_not_resume_on_other_films(data, tmp_path):
    "Refused by the name of the first; other packages or code are named and taken."
    folder = without_film_hashes(data.folder, tmp_path/"data")
    here, s = open_dataset(folder), settings(steps=1)
    R.begin(s, here, tmp_path/"run")
    first, second = sorted((folder/"generated").glob("*.mp4"))[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two), second.write_bytes(one)
    with pytest.raises(ValueError, match=f"began with other films: 2 of . differ, the first generated/{first.name}"):
        R.begin(s, here, tmp_path/"run", resume=True)
    first.write_bytes(one), second.write_bytes(two)
    R.begin(s, here, tmp_path/"run", resume=True)
    written = read_json(tmp_path/"run/run.json")
    assert len(written["films"]) == 5 and "resumed" not in written
    write_json(written | {"versions": written["versions"] | {"torch": "1.0"}, "code": "0"*16}, tmp_path/"run/run.json")
    with pytest.warns(UserWarning, match="resumes with another torch 1.0 → .*, code 0000"):
        R.begin(s, here, tmp_path/"run", resume=True)
    assert len(read_json(tmp_path/"run/run.json")["resumed"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        R.begin(s, here, tmp_path/"run", resume=True)            # warned once

def test_a_film_that_shows_nothing_is_refused_before_training(data, tmp_path):
    folder = without_film_hashes(data.folder, tmp_path/"data")
    grey = np.full((8, 112, 112, 3), 127, np.uint8)
    grey[3, 5, 5, 0] = 128
    video = open_dataset(folder).train[0].video
    encode(grey, folder/video, fps=8)
    with pytest.raises(ValueError, match=f"1 of 5 films cannot be used, the first: {video}: blank"):
        R.begin(settings(steps=1), open_dataset(folder), tmp_path/"run")
    assert not (tmp_path/"run/run.json").exists()
    R.begin(settings(steps=1, blank=True), open_dataset(folder), tmp_path/"blind")

def test_resuming_with_other_settings_is_refused(data, tmp_path):
    R.train(settings(steps=1), data, tmp_path/"run")
    with pytest.raises(ValueError, match="lr"): R.train(settings(steps=1, lr=1.0), data, tmp_path/"run", resume=True)

def test_a_run_killed_after_its_last_step_is_finished_not_trained_on(data, tmp_path):
    s = settings(steps=2)
    R.train(s, data, tmp_path/"run")
    before = (tmp_path/"run/adapter/adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path/"run/adapter")
    R.train(s, data, tmp_path/"run", resume=True)
    assert Run(tmp_path/"run").read_metrics().step.tolist() == [1, 2]
    assert (tmp_path/"run/adapter/adapter_model.safetensors").read_bytes() == before

def test_a_second_run_never_takes_the_first_ones_adapter(data, tmp_path):
    R.train(settings(steps=1), data, tmp_path/"run")
    with pytest.raises(ValueError, match="holds a run already"):
        R.train(settings(steps=1, lr=1.0), data, tmp_path/"run")

def test_what_would_fail_later_is_refused_first(data, tmp_path, monkeypatch):
    monkeypatch.setattr(R, "load_model", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match="questions_per_step is 500: wanted at most"):
        R.train(settings(questions_per_step=500, micro_groups=1), data, tmp_path/"a")
    with pytest.raises(ValueError, match="at least 2 scenes"):
        R.train(settings(), replace(data, test=data.test[:1]), tmp_path/"b")
    with pytest.raises(ValueError, match="no constant answer for"):
        R.train(settings(), replace(data, train_benchmark=data.train_benchmark[:1]), tmp_path/"c")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="num_processes is 3: wanted a divisor"):
        R.train(settings(), data, tmp_path/"d")
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("given, words", [(dict(mode="dream"), "mode is 'dream'"),
                                          (dict(num_generations=1), "num_generations is 1"),
                                          (dict(beta=-.1), "beta is -0.1"),
                                          (dict(steps=0), "steps is 0"),
                                          (dict(steps=2.5), "steps is 2.5: wanted a whole number"),
                                          (dict(beta="abc"), "beta is 'abc': wanted a finite number"),
                                          (dict(lr=0), "lr is 0: wanted above 0")])
def test_bad_values_are_refused_before_a_model_is_looked_for(given, words):
    with pytest.raises(ValueError, match=words): default_settings("smoke", "nobody/nothing", **given)

FIELDS = {f.name: f.type for f in fields(T.Settings)} # name → type
OTHER_KINDS = {int: ["8", [1, 2], 2.5, True, math.inf, math.nan, 2**32, -2**40, 10**5000, {}],
               float: ["1e-3", [1], True, math.inf, -math.inf, math.nan, 10**400],
               bool: [1, 0, "True", [True]], str: [20261125, 1.5, True, ["tiny"], {}]}

@pytest.mark.parametrize("name", [n for n in FIELDS if n != "video"])
def test_each_setting_refuses_each_other_kind_by_name(name):
    kind = int if name == "lora_alpha" else FIELDS[name]
    for value in OTHER_KINDS[kind] + ([] if name == "lora_alpha" else [None]):
        with pytest.raises(ValueError, match=f"^{name} is ") as e: T.Settings(**{name: value})
        assert len(str(e.value)) < 250

@pytest.mark.parametrize("given, words", [
    (dict(seed=-1), "seed is -1: wanted 0 or more"), (dict(seed=2**32), "seed is 4294967296: wanted a whole number"),
    (dict(temperature=1e-320), "temperature is 1e-320: wanted 0.01 to 100"),
    (dict(rewards="accuracy*1e999"), "rewards is 'accuracy.1e999': wanted weights of at most 1,000,000"),
    (dict(rewards="accuracy format*9999999"), "wanted weights"),
    (dict(epsilon=0), "epsilon is 0: wanted above 0"), (dict(epsilon=1.5), "epsilon is 1.5"),
    (dict(lora_alpha=0), "lora_alpha is 0: wanted 1 or more"), (dict(lora_rank=-1), "lora_rank is -1"),
    (dict(warmup_steps=90), "warmup_steps is 90: wanted less than the 90 steps"),
    (dict(warmup_steps=-1), "warmup_steps is -1"), (dict(video=None), "video is None: wanted a VideoSpec"),
    (dict(steps=10**9), "steps is 1000000000: wanted at most 156,250")])
def test_slips_of_the_pen_are_refused(given, words):
    with pytest.raises(ValueError, match=words): T.Settings(**given)

def test_the_scale_of_lora_follows_its_rank(data, tmp_path):
    "alpha is twice the rank unless it is given; the run keeps the number itself, and trains with it."
    assert [default_settings("smoke", "tiny", lora_rank=r, lora_alpha=a).lora_alpha
            for r, a in ((None, None), (64, None), (64, 8))] == [32, 128, 8]
    s = settings(lora_rank=4, lora_alpha=None)
    R.begin(s, data, tmp_path/"run")
    config = trainer_of(data, tmp_path/"c", s).model.peft_config["default"]
    assert read_json(tmp_path/"run/run.json")["settings"]["lora_alpha"] == 8 == config.lora_alpha and config.r == 4
    assert R.read_run(tmp_path/"run")[0] == s

@pytest.mark.parametrize("given, words", [(dict(frames="4"), "frames is '4': wanted a whole number"),
                                          (dict(max_pixels=math.inf), "max_pixels is inf"),
                                          (dict(steps=[1]), r"steps is \[1\]"), (dict(scale=["smoke"]), "scale is"),
                                          (dict(model=7), "model is 7: wanted text"),
                                          (dict(questions_per_scene=2**31, questions_per_step=10**7),
                                           "steps is 2: wanted at most 1")])
def test_settle_names_what_is_wrong(given, words):
    with pytest.raises(ValueError, match=words):
        default_settings(**{"scale": "smoke", "model": "nobody/nothing"} | given)

@pytest.mark.parametrize("mode", ["think", "observe"])
def test_a_mode_that_the_model_cannot_keep_is_refused(mode):
    with pytest.raises(ValueError, match=f"mode is '{mode}': wanted vanilla: model 'tiny' keeps no tag.*tiny-cot does"):
        default_settings("smoke", "tiny", mode=mode)
    # another model is not judged, only looked for
    with pytest.raises(FileNotFoundError): default_settings("smoke", "nobody/nothing", mode=mode)
    assert default_settings("smoke", "tiny-cot", mode=mode).mode == mode

@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_text_that_is_none_to_the_model_is_refused_before_training(data, tmp_path, part):
    "A token that only this model's tokenizer has, in any question: named with its row, before the trainer is made."
    processor, rows = load_processor("tiny"), getattr(data, part)
    processor.tokenizer.add_tokens(["<point>"])
    odd = replace(rows[-1], question="Where is <point>?")
    with pytest.raises(ValueError, match=f"question '{odd.id}' holds '<point>', which is a control token"):
        T.make_trainer(settings(), None, processor, replace(data, **{part: rows[:-1] + [odd]}), tmp_path)

def test_a_control_token_in_a_dataset_is_refused_when_it_is_opened(data, tmp_path):
    folder = tmp_path/"data"
    shutil.copytree(data.folder, folder)
    (folder/"dataset.json").unlink()
    table = pd.read_parquet(folder/"train.parquet")
    table.loc[3, "question"] = "What is <|video_pad|>?"
    table.to_parquet(folder/"train.parquet")
    words = rf"train.parquet, row 3: question '?{table.id[3]}'?: question holds '<\|video_pad\|>'"
    with pytest.raises(ValueError, match=words): open_dataset(folder)

def test_the_command_refuses_a_folder_that_is_no_run(data, tmp_path, capsys):
    R.begin(settings(), data, tmp_path/"moved")
    written = read_json(tmp_path/"moved/run.json")
    (tmp_path/"other").mkdir()
    (tmp_path/"other/run.json").write_text(json.dumps({"settings": {"modes": ["vanilla"]}}))
    (tmp_path/"broken").mkdir()
    (tmp_path/"broken/run.json").write_text("{")
    (tmp_path/"moved/manifest.json").unlink()
    moved = written | {"settings": written["settings"] | {"data": str(tmp_path/"gone")}}
    (tmp_path/"moved/run.json").write_text(json.dumps(moved))
    for name, words in (("nowhere", "no run.json there"), ("moved/run.json", "no run.json there"),
                        ("other", "not the settings of a training"), ("broken", "not JSON"),
                        ("moved", "gone: no train.parquet")):
        with pytest.raises(SystemExit) as e: P.train_cli([str(tmp_path/name)])
        err = capsys.readouterr().err
        assert e.value.code == 2 and err.count("\n") == 1 and err.startswith("vsgrpo-train: ") and words in err, err
    assert not (tmp_path/"nowhere").exists() and not list(tmp_path.rglob(".lock"))

def test_reward_and_score_read_alike(data):
    "What the benchmark's scorer counts as right for a lettered question earns the reward, in every mode."
    from vsgrpo.training.rewards import accuracy_reward
    from vsgrpo.evaluation.vsibench import score_answer
    rows = T.training_rows(data.train, data.folder, "think")
    for q, row in zip(data.train, rows):
        if not q.options: continue
        for option in q.options:
            text = f"<think>a b</think><answer>{option[3:]}</answer>"
            assert accuracy_reward([text], [row["question_type"]], [row["ground_truth"]], "think",
                                   options=[row["options"]]) == [score_answer(q, text, "tagged")]

def test_run_folders_are_never_overwritten(tmp_path):
    (tmp_path/"a").mkdir()
    (tmp_path/"a/run.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run already"): choose_folder(tmp_path, "a", False, "x")
    with pytest.raises(FileNotFoundError, match="nothing to resume"): choose_folder(tmp_path, "b", True, "x")
    with pytest.raises(ValueError, match="wanted True or False"): choose_folder(tmp_path, "a", "true", "x")

def test_runs_that_begin_in_one_second_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20261125-101112")
    found = [choose_folder(tmp_path, "", False, "x") for _ in range(3)]
    assert [f.name for f in found] == ["grpo-x-20261125-101112", "grpo-x-20261125-101112-2",
                                       "grpo-x-20261125-101112-3"] and all(f.is_dir() for f in found)

def test_think_mode_pays_for_format(data, tmp_path):
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c", settings(mode="think", steps=1, max_new_tokens=24), run).train()
    rows = run.read_rollouts()
    assert {"accuracy_reward", "format_reward"} <= set(rows)
    assert np.allclose(rows.reward, rows.accuracy_reward + rows.format_reward)

def test_rollouts_serve_several_updates(data, tmp_path, monkeypatch):
    "Two updates of the same answers: the second is clipped against the policy that wrote them."
    run, seen = Run(tmp_path/"run"), []
    trainer = trainer_of(data, tmp_path/"c",
                         settings(steps=4, questions_per_step=2, micro_groups=1, num_iterations=2, lr=3e-2), run)
    loss = type(trainer)._compute_loss
    def look(self, model, inputs):
        mask, row = inputs["completion_mask"].bool(), inputs["row"].tolist()
        self._rows = row
        with torch.no_grad():
            trees = prefix_tree.build_prefix_trees([self._prompt(r) for r in row],
                                                   [i[m].tolist() for i, m in zip(inputs["completion_ids"], mask)],
                                                   self.guard.video_id)
            now = tree_attention.completion_logps(model, trees)[0]
        seen.append((row,
                     float((now - inputs["old_per_token_logps"][:,
                                                                :now.shape[1]])[mask[:, :now.shape[1]]].abs().max())))
        return loss(self, model, inputs)
    monkeypatch.setattr(type(trainer), "_compute_loss", look)
    trainer.train()
    rows, gaps = [r for r, _ in seen], [g for _, g in seen]
    assert rows[:2] == rows[2:4] and rows[4:6] == rows[6:8] and rows[0] != rows[4] and len(rows) == 8
    assert max(gaps[:2] + gaps[4:6]) < 1e-5 and min(gaps[2:4] + gaps[6:8]) > 1e-3
    assert len(run.read_rollouts()) == 2*2*4 and run.read_metrics().step.tolist() == [1, 2, 3, 4]

# ---- the record of a run that was killed

def job(data, folder, s):
    R.begin(s, data, folder)
    return [sys.executable, "-c",
            "import sys; from vsgrpo.training import runs as R; s, data = R.read_run(sys.argv[1]); R.train(s, data, "
            "sys.argv[1], resume=True)", str(folder)]

def same_record(a, b):
    "Metrics but the seconds, rollouts and the adapter's bytes."
    seconds = ["seconds/rollout", "seconds/reference", "seconds/policy", "seconds/step", "videos_encoded"]
    ma, mb = (Run(x).read_metrics().drop(columns=seconds) for x in (a, b))
    assert ma.to_json() == mb.to_json() and Run(a).read_rollouts().to_json() == Run(b).read_rollouts().to_json()
    assert (a/"adapter/adapter_model.safetensors").read_bytes() == (b/"adapter/adapter_model.safetensors").read_bytes()

@pytest.mark.parametrize("iterations", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_bytes(data, tmp_path, root, iterations):
    "kill -9 in mid-training, between two checkpoints; another process resumes and ends as if nothing had been."
    s = settings(steps=14, save_every=3, num_iterations=iterations, probe_every=4, questions_per_step=4, micro_groups=2)
    env, whole, cut = dict(os.environ, PYTHONPATH=str(root)), tmp_path/"whole", tmp_path/"cut"
    R.begin(s, data, whole)
    R.train(s, data, whole, resume=True)
    command, begin = job(data, cut, s), time.time()
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (cut/"metrics.jsonl").is_file() or (cut/"metrics.jsonl").read_text().count("\n") < 5:
        assert first.poll() is None and time.time() - begin < 300, first.stderr.read().decode()[-2000:]
        time.sleep(.01)
    assert P.is_running(cut)
    with pytest.raises(ValueError, match="is being trained by another process"), R.alone(cut): pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (cut/"adapter").exists() and not P.is_running(cut)
    R.begin(s, data, cut, resume=True)
    R.train(s, data, cut, resume=True)
    same_record(whole, cut)

def test_two_processes_do_what_one_does(data, tmp_path):
    """The same rollouts, rewards, KL, gradient norm and weights at the same global batch, by DDP over gloo. Both
    updates are from one rollout: a rollout of updated weights may draw another token where two lie within rounding of
    each other, on one processor or the other."""
    s = settings(steps=2, num_iterations=2, questions_per_step=4, micro_groups=1, num_generations=6, lr=2e-3, beta=.04,
                 probe_every=2)
    for n in (1, 2): R.begin(s, data, tmp_path/f"{n}", num_processes=n)
    P.train_and_test(tmp_path/"1", s, data, R.StopRequest())
    P.finish(P.start(tmp_path/"2", 2), tmp_path/"2")
    one, two = (Run(tmp_path/n).read_metrics() for n in "12")
    def rollouts(n):
        rows = Run(tmp_path/n).read_rollouts().sort_values(["step", "id"], kind="stable")
        return rows[["step", "id", "completion", "reward", "advantage", "n_tokens"]].reset_index(drop=True)
    def weights(n):
        adapter = load_file(tmp_path/n/"adapter/adapter_model.safetensors")
        return torch.cat([w.flatten() for _, w in sorted(adapter.items())])
    assert one.step.tolist() == two.step.tolist() == [1, 2] and one.kl.iloc[-1] > 1e-4 and one.grad_norm.min() > .01
    assert rollouts("1").equals(rollouts("2"))
    assert (weights("1") - weights("2")).norm() < 1e-4*weights("1").norm()
    for name in ("reward", "accuracy", "kl", "entropy", "grad_norm", "zero_variance_groups", "same", "probe/own",
                 "probe/other", *[c for c in one if c.startswith("accuracy/")]):
        assert np.allclose(one[name], two[name], atol=1e-5, rtol=1e-5, equal_nan=True), name
    assert (tmp_path/"2/scores.csv").read_text() == (tmp_path/"1/scores.csv").read_text()

def test_a_run_is_followed_and_an_interrupt_stops_it(data, tmp_path, monkeypatch, capsys):
    "Curves are drawn from the run folder; an interrupt ends the training, which can be resumed."
    import IPython.display
    drawn = []
    class Shown:
        def update(self, figure): drawn.append(figure)
    def display(*figures, **kw):
        drawn.extend(figures)
        return Shown()
    monkeypatch.setattr(IPython.display, "display", display)
    s = settings(steps=40, save_every=5)
    R.begin(s, data, tmp_path/"run")
    process, honest = P.start(tmp_path/"run", threads=1), time.sleep
    def tired(seconds):
        honest(.1)
        if (tmp_path/"run/metrics.jsonl").is_file() and (tmp_path/"run/metrics.jsonl").read_text().count("\n") > 6:
            raise KeyboardInterrupt
    monkeypatch.setattr(P.time, "sleep", tired)
    with pytest.raises(KeyboardInterrupt): P.follow(tmp_path/"run", process)
    assert process.poll() is not None and not P.is_running(tmp_path/"run") and not (tmp_path/"run/adapter").exists()
    monkeypatch.setattr(P.time, "sleep", honest)
    R.begin(s, data, tmp_path/"run", resume=True)
    drawn.clear()
    P.follow(tmp_path/"run", P.start(tmp_path/"run", threads=1), every=.1)
    printed = capsys.readouterr().out
    assert "step 40 of 40, reward" in printed and len(drawn) >= 2
    assert drawn[-1].axes[0].get_title("left") == "total reward"
    assert (tmp_path/"run/scores.csv").is_file()
    drawn.clear()
    P.follow(tmp_path/"run")                                 # after the end
    assert len(drawn) == 1 and Run(tmp_path/"run").read_metrics().step.tolist() == list(range(1, 41))

def test_a_process_that_fails_is_reported(data, tmp_path):
    s = settings(steps=1)
    R.begin(s, data, tmp_path/"run")
    written = read_json(tmp_path/"run/run.json")
    written["settings"]["data"] = str(tmp_path/"gone")
    write_json(written, tmp_path/"run/run.json")
    with pytest.raises(RuntimeError, match="(?s)training of .* ended with 2.*gone"):
        P.finish(P.start(tmp_path/"run"), tmp_path/"run")

# ---- a run that is stopped

@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    "A run that nobody disturbed: its settings and its folder."
    s, folder = settings(steps=14, save_every=5, questions_per_step=2, test_scenes=2,
                         ask_batch=4), tmp_path_factory.mktemp("whole")/"run"
    R.begin(s, data, folder)
    P.train_and_test(folder, s, data, R.StopRequest())
    return s, folder

def resumed(folder):
    "Resume a run here, and what it has in the end."
    P.train_and_test(folder, *R.read_run(folder), R.StopRequest())
    return folder

def same_run(a, b):
    "Compare two runs: `same_record`, the answers without their seconds, and the scores."
    same_record(a, b)
    for path in sorted((a/"answers").glob("*.jsonl")):
        answers = [pd.read_json(x/"answers"/path.name, lines=True).drop(columns="seconds").to_json() for x in (a, b)]
        assert answers[0] == answers[1], path.name
    assert (a/"scores.csv").read_bytes() == (b/"scores.csv").read_bytes()

def after_steps(folder, n, process):
    "Wait until a run has recorded some steps."
    begin = time.time()
    while not (folder/"metrics.jsonl").is_file() or (folder/"metrics.jsonl").read_text().count("\n") < n:
        assert process.poll() is None and time.time() - begin < 300
        time.sleep(.01)

def stopped_at(folder, words):
    "The step after which a run was stopped, as its last line says; a whole checkpoint of that step is there."
    step = int(re.search(rf"run: {words} after step (?P<step>\d+) of 14, which is saved; to resume: vsgrpo-train "
                         r".*run, or -p resume True", words_of(folder)[-1])["step"])
    assert R.last_checkpoint(folder) == (folder/f"checkpoints/checkpoint-{step}",
                                         step) and Run(folder).read_metrics().step.tolist() == list(range(1, step + 1))
    assert not (folder/"adapter").exists() and not [line for line in words_of(folder) if "Traceback" in line]
    return step

def words_of(folder): return (folder/"train.log").read_text().splitlines()

@pytest.mark.parametrize("number, code", [
    pytest.param(signal.SIGTERM, 143, id="TERM"),
    pytest.param(signal.SIGINT, 130, id="INT", marks=pytest.mark.slow),
])
def test_a_signal_stops_a_training_after_its_step(data, whole, tmp_path, root, number, code):
    "`vsgrpo-train` saves, says in one line how to resume, ends with the signal's code; the resumed run loses nothing."
    s, undisturbed = whole
    R.begin(s, data, run := tmp_path/"run")
    call = [sys.executable, "-c", "from vsgrpo.training.run_process import train_cli; train_cli()", str(run)]
    with open(run/"train.log", "w") as log:
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=dict(os.environ, PYTHONPATH=str(root)))
    after_steps(run, 2, process)
    process.send_signal(number)
    assert process.wait(300) == code
    assert 2 <= stopped_at(run, f"stopped by {number.name}") < 14
    same_run(undisturbed, resumed(run))

@pytest.mark.parametrize("number", [
    pytest.param(signal.SIGTERM, id="TERM", marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, id="INT", marks=pytest.mark.slow),
    pytest.param(signal.SIGKILL, id="KILL"),
])
def test_a_training_stops_when_its_notebook_is_gone(data, whole, tmp_path, root, number):
    "However papermill ends, and whether or not its kernel outlives it for a moment."
    s, undisturbed = whole
    R.begin(s, data, run := tmp_path/"run")
    cell = dict(cell_type="code", id="one", metadata={}, execution_count=None, outputs=[],
                source=f"from vsgrpo.training.run_process import follow, start\nfollow({str(run)!r}, "
                       f"start({str(run)!r}, "
                       "threads=1))")
    write_json(dict(cells=[cell],
                    metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")),
                    nbformat=4, nbformat_minor=5), tmp_path/"nb.ipynb")
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", "nb.ipynb", "out.ipynb"]
    papermill = subprocess.Popen(call, cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(root)),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after_steps(run, 2, papermill)
    papermill.send_signal(number)
    assert papermill.wait(60) != 0
    begin = time.time()
    while P.is_running(run):
        assert time.time() - begin < 120
        time.sleep(.05)
    # papermill interrupts its kernel, or leaves it
    assert stopped_at(run, "stopped( by SIGTERM|, since the notebook that started it is gone)") < 14
    same_run(undisturbed, resumed(run))

def test_all_processes_of_a_training_stop_after_the_same_step(data, tmp_path):
    "Torch's launcher passes SIGTERM on; no process waits for one that has ended."
    R.begin(settings(steps=14, questions_per_step=4, micro_groups=2, num_iterations=2), data, run := tmp_path/"run",
            num_processes=2)
    process = P.start(run, 2, 1)
    after_steps(run, 1, process)
    P.stop(process)
    lines = [line for line in words_of(run) if "which is saved" in line]
    step = int(re.search(r"stopped by SIGTERM after step (\d+) of 14", lines[0])[1])
    assert len(lines) == 1 and step % 2 == 0 and not P.is_running(run)
    assert R.last_checkpoint(run)[1] == step == len(Run(run).read_metrics())

def test_a_signal_stops_a_test_between_two_batches(data, whole, tmp_path, monkeypatch):
    "Answers of whole arms are kept, those of the interrupted arm are not; the rest is answered later."
    s, undisturbed = whole
    run = shutil.copytree(undisturbed, tmp_path/"run")
    for path in (run/"scores.csv", *run.glob("answers/*")): path.unlink()
    stop, batches = R.StopRequest(), []
    def ask(*a, between, **kw):
        def counted():
            batches.append(a[10])
            if batches.count("trained") == 2: stop.note(signal.SIGTERM, "stopped by SIGTERM")
            between()
        return honest(*a, between=counted, **kw)
    honest = R.generate_answers
    monkeypatch.setattr(R, "generate_answers", ask)
    with pytest.raises(R.Stopped, match="stopped by SIGTERM in its test; answers of whole arms are kept"):
        P.train_and_test(run, *R.read_run(run), stop)
    assert batches.count("trained") == 2 and not (run/"scores.csv").exists()
    assert [path.name for path in (run/"answers").glob("*.jsonl")] == ["base.jsonl"]
    monkeypatch.setattr(R, "generate_answers", honest)
    same_run(undisturbed, resumed(run))

# ---- collapse

def falling(monkeypatch, step):
    "Report a collapse from a step on."
    monkeypatch.setattr(callbacks, "collapsed", lambda past: "it fell" if past.step.iloc[-1] >= step else "")

def test_a_collapse_is_noted_and_the_run_continues(data, tmp_path, monkeypatch):
    falling(monkeypatch, 2)
    R.train(settings(steps=4), data, tmp_path/"run")
    assert json.loads((tmp_path/"run/collapse.json").read_text()) == dict(step=2, reason="it fell", action="note")
    assert len(Run(tmp_path/"run").read_metrics()) == 4

def test_a_collapse_stops_the_run(data, tmp_path, monkeypatch):
    falling(monkeypatch, 2)
    R.train(settings(steps=4, on_collapse="stop"), data, tmp_path/"run")
    assert len(Run(tmp_path/"run").read_metrics()) == 2 and (tmp_path/"run/adapter").is_dir()

@pytest.mark.parametrize("at, good", [(11, 5), (3, 0)])
def test_a_collapse_takes_the_last_good_adapter(data, tmp_path, monkeypatch, at, good):
    "The newest checkpoint from before the window in which it was noticed; the base, where there is none."
    falling(monkeypatch, at)
    R.train(settings(steps=12, save_every=5, on_collapse="rollback"), data, tmp_path/"run")
    collapse = json.loads((tmp_path/"run/collapse.json").read_text())
    kept = load_file(tmp_path/"run/adapter/adapter_model.safetensors")
    assert collapse["good"] == good and len(Run(tmp_path/"run").read_metrics()) == at
    if good:
        checkpoint = load_file(tmp_path/f"run/checkpoints/checkpoint-{good}/adapter_model.safetensors")
        assert all(torch.equal(kept[k], v) for k, v in checkpoint.items())
    else: assert all(not v.any() for k, v in kept.items() if "lora_B" in k)

@pytest.mark.parametrize("where, at, action", [("loss", 3, "note"), ("loss", 9, "stop"), ("gradient", 7, "rollback")])
def test_what_is_not_finite_ends_the_run_with_its_last_good_adapter(data, tmp_path, monkeypatch, where, at, action):
    "Whatever the setting: such a run cannot continue, and its test needs finite weights."
    honest = T.make_trainer
    def broken(*a, **k):
        trainer = honest(*a, **k)
        weight = next(p for n, p in trainer.model.named_parameters() if "lora_B" in n)
        step = trainer._compute_loss
        def compute(model, inputs):
            if trainer.state.global_step + 1 == at and where == "loss": weight.data.fill_(float("nan"))
            if trainer.state.global_step + 1 == at and where == "gradient":
                weight.register_hook(lambda g: g*float("nan"))
            return step(model, inputs)
        trainer._compute_loss = compute
        return trainer
    monkeypatch.setattr(T, "make_trainer", broken)
    R.train(settings(steps=12, save_every=2 if action != "rollback" else 5, on_collapse=action), data, tmp_path/"run")
    at_once, at = at, 1
    with pytest.raises(FloatingPointError, match=f"the {where} is not finite in the first step"):
        R.train(settings(steps=2), data, tmp_path/"first")
    assert not (tmp_path/"first/adapter").exists()
    at = at_once
    collapse = json.loads((tmp_path/"run/collapse.json").read_text())
    kept = load_file(tmp_path/"run/adapter/adapter_model.safetensors")
    assert collapse == dict(step=at, reason=f"the {where} is not finite in step {at}", action="rollback",
                            good=collapse["good"])
    assert len(Run(tmp_path/"run").read_metrics()) == at - 1
    assert collapse["good"] <= at and all(v.isfinite().all() for v in kept.values())
    if collapse["good"] == 0: assert all(not v.any() for k, v in kept.items() if "lora_B" in k)

# ---- rewards of a run

def test_a_run_pays_what_its_line_of_rewards_says(data, tmp_path):
    (tmp_path/"mine.py").write_text("def brevity(completions, **kw): return [None if i == 0 else 1/len(c) if c else 0 "
                                    "for i, c in enumerate(completions)]")
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c",
               settings(steps=1, rewards=f"accuracy:mra*2 length:naive(0,6)*0.5 {tmp_path/'mine.py'}:brevity"),
               run).train()
    rows = run.read_rollouts()
    expected = 2*rows.accuracy_reward + .5*rows.length_reward + rows.brevity_reward.fillna(0)
    assert np.allclose(rows.reward, expected) and rows.brevity_reward.isna().sum() == 1
    assert np.allclose(rows.length_reward, (rows.n_tokens/6).clip(upper=1))

def test_a_file_of_rewards_is_loaded_once_and_not_missed_later(data, tmp_path):
    "It deletes itself in the first step; the probe of the second needs the accuracy reward alone."
    (tmp_path/"mine.py").write_text(f"""from pathlib import Path
with open({str(tmp_path/"loads")!r}, "a") as f: f.write("x")
def gone(completions, **kw):
    Path({str(tmp_path/"mine.py")!r}).unlink(missing_ok=True)
    return [0]*len(completions)""")
    run = Run(tmp_path/"run")
    trainer_of(data, tmp_path/"c", settings(steps=2, probe_every=1,
                                            rewards=f"accuracy {tmp_path/'mine.py'}:gone"), run).train()
    assert run.read_metrics()["probe/own"].notna().all()
    assert (tmp_path/"loads").read_text() == "x" and not (tmp_path/"mine.py").exists()

@pytest.fixture(scope="module")
def planted(data, tmp_path_factory):
    "A finished run whose file of rewards leaves a mark when it is loaded, and the place of that mark."
    home = tmp_path_factory.mktemp("planted")
    own = home/"mine.py"
    own.write_text("def pay(completions, **kw): return [0]*len(completions)")
    s = settings(steps=1, test_scenes=2, rewards=f"accuracy:linear {own}:pay")
    R.begin(s, data, home/"run")
    P.train_and_test(home/"run", *R.read_run(home/"run"), R.StopRequest())
    own.write_text(f"open({str(home/'mark')!r}, 'w').close()\n" + own.read_text())
    mine = [name for name, module in sys.modules.items() if name.startswith("mine_") and module.__file__ == str(own)]
    sys.modules.pop(mine[0])
    return home/"run", own, home/"mark"

def test_reading_a_run_runs_nothing_of_it(planted, tmp_path, root, monkeypatch):
    "Whoever opens a run folder, it may be anybody's."
    import IPython.display
    run, own, mark = planted
    monkeypatch.setattr(IPython.display, "display", lambda *a, **kw: None)
    s, there = R.read_run(run)
    assert str(own) in s.rewards
    R.read_predictions(s, there, run)
    P.follow(run)
    run_page.write_page(run, tmp_path/"page.html")
    explorer.explore_run(run)
    explorer.reward_lab(run)
    sharing.write_card(run)
    sharing.check_shareable(run)
    sharing.merge_adapter(run, tmp_path/"merged")
    adapters.trained_adapters(run, "tiny")
    studies.arm_row(run)
    before_after(run, T.VideoReader(load_processor("tiny"), s.video, T.frame_folder()).frames, "object_counting")
    runpy.run_path(str(root/"docs/tour.py"))["tour"](run, tmp_path/"tour.html")
    shutil.copytree(run, tmp_path/"runs/grpo-tiny-think-s0")
    list(runpy.run_path(str(root/"docs/ledger.py"))["collect"](tmp_path/"runs"))
    assert not mark.exists()

def test_training_loads_a_file_of_rewards_where_the_command_names_it(planted, tmp_path, monkeypatch, capsys):
    "Otherwise it is refused, before anything is loaded, with the command that would."
    run, own, mark = planted
    run = shutil.copytree(run, tmp_path/"run")
    monkeypatch.setattr(R.StopRequest, "listen", lambda self: self)
    for given in ([], ["--rewards", str(tmp_path/"other.py")]):
        with pytest.raises(SystemExit) as stopped:
            P.train_cli([str(run), *given])
        why = (f"its rewards come from {own}, which training would execute; if you trust this code: "
               f"vsgrpo-train {run} --rewards {own}")
        assert stopped.value.code == 2 and why in capsys.readouterr().err
    assert not mark.exists()
    for path in (run/"adapter", run/"checkpoints"): shutil.rmtree(path)
    # it was changed
    with pytest.raises(ValueError, match="began with other settings: own_rewards"):
        P.train_cli([str(run), "--rewards", str(own)])
    assert not mark.exists()

def test_a_run_holds_absolute_paths(data, tmp_path, monkeypatch):
    "To its data, benchmark, model and file of rewards; the same places may be given in any way when it is resumed."
    shutil.copytree(data.folder, tmp_path/"data")
    shutil.copytree(TINY, tmp_path/"model")
    (tmp_path/"mine.py").write_text("def pay(completions, **kw): return [0]*len(completions)")
    monkeypatch.chdir(tmp_path)
    s = settings(steps=1, model="model", rewards="accuracy mine.py:pay")
    R.begin(s, R.with_bench(replace(open_dataset("data"), train=data.train), "data"), "run")
    written = read_json(tmp_path/"run/run.json")["settings"]
    assert written["data"] == written["bench"] == f"{tmp_path}/data" and written["model"] == f"{tmp_path}/model"
    assert written["rewards"] == f"accuracy {tmp_path}/mine.py:pay"
    assert list(written["own_rewards"]) == [f"{tmp_path}/mine.py"]
    R.begin(s, R.with_bench(open_dataset("../" + tmp_path.name + "/data"), "./data"), "run", resume=True)
    monkeypatch.chdir(tmp_path/"model")
    again, there = R.read_run(tmp_path/"run")
    assert there.folder == there.bench == tmp_path/"data"
    R.begin(again, there, tmp_path/"run", resume=True)
    # as earlier versions may have
    whole = read_json(tmp_path/"run/run.json")
    write_json({"settings": written | {"data": "../data"}, **{k: v for k, v in whole.items() if k != "settings"}},
               tmp_path/"run/run.json")
    R.begin(again, there, tmp_path/"run", resume=True)

def test_the_probe_looks_at_other_videos_and_changes_nothing(data, tmp_path):
    metrics = []
    for every in (0, 1):
        run = Run(tmp_path/f"run{every}")
        trainer_of(data, tmp_path/f"c{every}", settings(steps=2, lr=1e-2, probe_every=every), run).train()
        metrics.append(run.read_metrics())
    assert "probe/own" not in metrics[0] and metrics[1]["probe/own"].notna().all()
    assert metrics[0].grad_norm.equals(metrics[1].grad_norm) and metrics[0].reward.equals(metrics[1].reward)
    rows = T.training_rows(data.train, data.folder, "vanilla")
    assert all(a != b for a, b in zip(rows["video"], rows["other"]))

# ---- the guard, path by path

def blind_path(where, monkeypatch):
    "Drop the features from one kind of pass only: the marks are the grad mode, and whether the tree holds answers."
    honest = tree_attention.batch_trees
    def blind(model, trees):
        batch, written = honest(model, trees), bool(trees[0].answers[0][0])
        if {"rollout": not written, "reference": written and not torch.is_grad_enabled(),
            "policy": written and torch.is_grad_enabled()}[where]:
            for k in ("pixel_values_videos", "video_grid_thw"): batch.inputs.pop(k)
        return batch
    for module in (tree_attention, sampling): monkeypatch.setattr(module, "batch_trees", blind)

@pytest.mark.parametrize("where", ["rollout", "reference", "policy"])
def test_each_blind_pass_of_training_stops_the_run(data, tmp_path, monkeypatch, where):
    blind_path(where, monkeypatch)
    with pytest.raises(vision_guard.BlindError, match=f"{where}: the vision tower was not called"):
        trainer_of(data, tmp_path/"c").train()

def test_a_blind_pass_of_evaluation_stops_it(data, tmp_path, monkeypatch):
    s = settings(steps=1)
    model, processor = R.train(s, data, tmp_path/"run")
    blind_path("rollout", monkeypatch)
    with pytest.raises(vision_guard.BlindError, match="the vision tower was not called"):
        R.evaluate(s, model, processor, data, tmp_path/"run")
    assert not (tmp_path/"run/scores.csv").exists()

def test_answers_hold_what_python_takes_for_line_ends(data, tmp_path):
    "U+0085, U+2028 and U+2029 are characters of an answer, which made a run unfinishable."
    s, run = settings(steps=1), tmp_path/"run"
    R.begin(s, data, run)
    ids = [q.id for q in R.held_out(s, data)]
    texts = {i: f"a{mark}b" for i, mark in zip(ids, "\u0085\u2028\u2029\n"*len(ids))}
    R.save_answers(pd.DataFrame([dict(arm="trained", mode="vanilla", id=i, prediction=x) for i, x in texts.items()]),
                   run/"answers", "trained")
    assert R.read_predictions(s, data, run)["trained"] == texts
    path = run/"answers/trained.jsonl"
    path.write_text(path.read_text().replace("vanilla", "Vanilla", 1))
    with pytest.raises(ValueError, match="trained.jsonl: damaged"): R.read_predictions(s, data, run)

def test_evaluation_keeps_the_answers_that_are_there(data, tmp_path, monkeypatch):
    s = settings(steps=1, mode="think", max_new_tokens=24, test_scenes=2)
    model, processor = R.train(s, data, tmp_path/"run")
    first = R.evaluate(s, model, processor, data, tmp_path/"run")
    assert set(first) == {"base", "trained", "trained_shuffled", "trained_vanilla", "constant"}
    table = (tmp_path/"run/scores.csv").read_text()
    (tmp_path/"run/answers/trained.jsonl").unlink()
    answered, honest = [], R.generate_answers
    monkeypatch.setattr(R, "generate_answers", lambda *a, **k: (answered.append(a[10]), honest(*a, **k))[1])
    assert R.evaluate(s, model, processor, data, tmp_path/"run") == first and answered == ["trained"]
    assert (tmp_path/"run/scores.csv").read_text() == table

def test_a_benchmark_is_shown_as_its_own_pipeline_does(data, tmp_path, monkeypatch):
    "Frames of our own rooms are rounded in training and test, those of VSI-Bench are cut off."
    specs = []
    monkeypatch.setattr(R, "VideoReader", lambda processor, spec, *rest, **more: specs.append(spec))
    monkeypatch.setattr(R, "VisionFeatureCache", lambda *rest: None)
    s = settings(steps=1, test_scenes=2)
    for tested in (data, replace(data, bench=data.folder)):
        R.evaluate(s, None, None, tested, tmp_path, arms=("constant",))
    assert specs == [s.video, replace(s.video, sampling="uniform_floor")] and s.video.sampling == "uniform"
    assert "held_out_video" not in R.whole_settings(s, data)

def test_a_run_is_tested_on_a_benchmark_that_is_given(data, tmp_path):
    "Its rows and films lie elsewhere; the run folder knows where; a warning names scenes that are trained on."
    bench = tmp_path/"bench"
    (bench/"generated").mkdir(parents=True)
    shutil.copy(data.folder/"test.parquet", bench)
    for video in {q.video for q in data.test}: shutil.copy(data.folder/video, bench/video)
    s, tested = settings(steps=1, test_scenes=2), R.with_bench(replace(data, test=[]), bench)
    assert {q.id for q in tested.test} == {q.id for q in data.test}
    R.begin(s, tested, tmp_path/"run")
    P.finish(P.start(tmp_path/"run", threads=1), tmp_path/"run")
    again, theirs = R.read_run(tmp_path/"run")
    arms = {"base", "trained", "trained_shuffled", "constant"}
    assert again == s and theirs.bench == bench and set(R.read_predictions(s, theirs, tmp_path/"run")) == arms
    assert (tmp_path/"run/scores.csv").is_file()
    shown = Run(tmp_path/"run").read_settings()["settings"]
    assert (shown["video"]["sampling"], shown["held_out_video"]["sampling"]) == ("uniform", "uniform_floor")
    shutil.copy(data.folder/"train_benchmark.parquet", bench/"test.parquet")
    for video in {q.video for q in data.train}: shutil.copy(data.folder/video, bench/video)
    with pytest.warns(UserWarning, match="scenes of .* are trained on"): R.with_bench(data, bench)
