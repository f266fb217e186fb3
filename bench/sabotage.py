"""Does a training that does not learn from what it sees say so?

    .venv/bin/python bench/sabotage.py              # 20 planted faults, 23 sound runs
    .venv/bin/python bench/sabotage.py --only loss  # the faults and sound runs whose name holds a word

Each fault is planted in an otherwise sound training of the tiny model (`vsgrpo.training.runs.train`: 8 steps of 8
questions, the first of which warms up with a learning rate of 0) at the place where a mistake would make it: a cache, a
reader, a pass, TRL's trainer, the dataset. It counts as caught in the step in which the training stops, in step 0 if it
is refused before the first, and as caught later if `warnings_of` names something at the end. Sound runs differ in
method, mode, seed, number of updates, rewards, precision and processes; one that stops is a false alarm. The last line
is one JSON object.
"""
import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from vsgrpo.training.settings import default_settings
from vsgrpo.engine.video import fix_torchvision

fix_torchvision()
import trl  # noqa: E402
from peft import PeftModel  # noqa: E402

from vsgrpo import files  # noqa: E402
from vsgrpo.engine import models, sampling, tree_attention, video  # noqa: E402
from vsgrpo.training import batches, run_process, runs, trainer  # noqa: E402
from vsgrpo.training.checks import CheckFailed  # noqa: E402
from vsgrpo.engine.vision_guard import BlindError, VisionFeatureCache, VisionGuard  # noqa: E402
from vsgrpo.evaluation.records import Run  # noqa: E402
from vsgrpo.data.dataset import RoomsSpec, build_rooms, open_dataset  # noqa: E402
from vsgrpo.evaluation.rows import read_questions, write_questions  # noqa: E402
from vsgrpo.training.watch import warnings_of  # noqa: E402

STEPS = 8
# where the folders of the caches are looked up
CACHES = [(trainer, "frame_folder"), (runs, "frame_folder"), (trainer, "feature_folder"), (runs, "feature_folder"),
          (batches, "feature_folder")]


def settings(**given):
    model = given.pop("model", "tiny")
    usual = dict(steps=STEPS, questions_per_step=8, warmup_steps=1, probe_every=4, save_every=4, test_scenes=2)
    return default_settings("default", model, **{**usual, **given})


# ---- faults: context managers, given the dataset's folder and a folder to write in

def wrap(place, name, change):
    "Replace a function by `change(honest)`."
    return patch.object(place, name, change(getattr(place, name)))


def other_features(folder, tmp):
    "Each film's entry in the feature cache holds the next film's features, with its checksum made anew."
    data, model, processor = open_dataset(folder), models.load_model("tiny"), models.load_processor("tiny")
    known, reader = VisionFeatureCache(model, tmp/"features"), models.VideoReader(processor, settings().video)
    films = [reader(data.folder/v) for v in sorted({q.video for q in data.train})]
    with torch.no_grad(): features = [model.model.visual(f.pixels, grid_thw=f.grid).pooler_output for f in films]
    for film, others in zip(films, features[1:] + features[:1]): known.put(film, others)
    return patch.object(trainer, "feature_folder", lambda: tmp/"features")


def permuted_tokens(folder, tmp):
    def change(honest):
        def recall(self, hidden_states, grid_thw, **kw):
            out = honest(self, hidden_states, grid_thw, **kw)
            if self.videos: out.pooler_output = out.pooler_output.flip(0)
            return out
        return recall
    return wrap(VisionGuard, "_recall", change)


def reversed_frames(folder, tmp):
    def change(honest): return lambda self, *a: np.ascontiguousarray(honest(self, *a)[::-1])
    return wrap(video.FrameCache, "__call__", change)


def cropped_frames(folder, tmp):
    def crop(frames):
        h, w = frames.shape[1:3]
        return video.resize(frames[:, h//4:h//4 + h//2, w//4:w//4 + w//2], h, w)
    def change(honest): return lambda self, frames, path: honest(self, crop(frames), path)
    return wrap(models.VideoReader, "prepare", change)


def zero_positions(folder, tmp):
    def change(honest):
        def batch_trees(*a):
            batch = honest(*a)
            batch.inputs["position_ids"].zero_()
            return batch
        return batch_trees
    both = ExitStack()
    for module in (tree_attention, sampling): both.enter_context(wrap(module, "batch_trees", change))
    return both


def adapter_off(folder, tmp):
    def change(honest):
        def sample(model, *a, **kw):
            with model.disable_adapter(): return honest(model, *a, **kw)
        return sample
    return wrap(trainer, "sample_answers", change)


def reference_is_policy(folder, tmp): return patch.object(PeftModel, "disable_adapter", lambda self: nullcontext())


def paid(change):
    "Rewards (completions, functions) that TRL has computed, changed."
    def changed(honest): return lambda self, *a, **kw: change(honest(self, *a, **kw))
    return wrap(trl.GRPOTrainer, "_calculate_rewards", changed)


def shuffled_rewards(folder, tmp):
    def shuffle(r): return r[torch.randperm(len(r), generator=torch.Generator().manual_seed(0))]
    return paid(shuffle)


def constant_rewards(folder, tmp): return paid(torch.ones_like)


def negated_advantages(folder, tmp):
    def change(honest): return lambda self, model, x: honest(self, model, x | {"advantages": -x["advantages"]})
    return wrap(trl.GRPOTrainer, "_compute_loss", change)


def rolled_advantages(folder, tmp):
    def change(honest):
        def score(self, inputs):
            output = honest(self, inputs)
            return output | {"advantages": output["advantages"].roll(1)}
        return score
    return wrap(trl.GRPOTrainer, "_generate_and_score_completions", change)


def idle_optimiser(folder, tmp): return patch.object(torch.optim.AdamW, "step", lambda self, closure=None: None)


@contextmanager
def changed_film(folder, change):
    "The first training film replaced, the dataset's record with it, as if it had been built so."
    film = folder/open_dataset(folder).train[0].video
    frames = video.decode(film, settings().video)
    video.encode(change(frames), film, fps=8)
    note = files.read_json(folder/"dataset.json")
    note["films"][str(film.relative_to(folder))] = files.file_hash(film)
    files.write_json(note, folder/"dataset.json")
    yield


def nearly_blank(folder, tmp):
    def change(frames):
        grey = np.full_like(frames, 127)
        grey[1, 3, 4, 0] = 128
        return grey
    return changed_film(folder, change)


def nan_gradient(folder, tmp):
    def change(honest):
        def loss(self, model, inputs):
            next(p for n, p in model.named_parameters() if "lora_A" in n).register_hook(lambda g: g*float("nan"))
            return honest(self, model, inputs)
        return loss
    return wrap(trl.GRPOTrainer, "_compute_loss", change)


def other_answers(folder, tmp):
    def change(honest):
        def changed(*a):
            table = honest(*a)
            truth = list(table["ground_truth"])
            for kind in set(table["question_type"]):
                rows = [i for i, k in enumerate(table["question_type"]) if k == kind]
                for i, j in zip(rows, rows[5:] + rows[:5]): truth[i] = table["ground_truth"][j]
            return table.remove_columns("ground_truth").add_column("ground_truth", truth)
        return changed
    return wrap(trainer, "training_rows", change)


def colder_rollouts(folder, tmp):
    def change(honest):
        def sample(*a, temperature, **kw): return honest(*a, temperature=temperature and .5, **kw)
        return sample
    return wrap(trainer, "sample_answers", change)


def negated_loss(folder, tmp):
    return wrap(trl.GRPOTrainer, "compute_loss", lambda honest: lambda self, *a, **kw: -honest(self, *a, **kw))


def stale_rollouts(folder, tmp):
    last = []
    def change(honest):
        def sample(model, prompts, n, *a, **kw):
            made = honest(model, prompts, n, *a, **kw)
            if n > 1: last.append(made)
            return last[-2] if n > 1 and len(last) > 1 else made
        return sample
    return wrap(trainer, "sample_answers", change)


@contextmanager
def exchanged_films(folder, tmp):
    films = sorted((folder/"generated").glob("*.mp4"))
    content = [f.read_bytes() for f in films]
    for f, c in zip(films, content[1:] + content[:1]): f.write_bytes(c)
    yield


@contextmanager
def wrong_answers(folder, tmp):
    "Every number of the training set is a fifth too large, as a builder with a fault would write it."
    def larger(q): return q if q.is_mca else replace(q, ground_truth=f"{1.2*float(q.ground_truth):.1f}")
    write_questions([larger(q) for q in read_questions(folder/"train.parquet")], folder/"train.parquet")
    note = files.read_json(folder/"dataset.json")
    note["sha256"]["train.parquet"] = files.file_hash(folder/"train.parquet")
    files.write_json(note, folder/"dataset.json")
    yield


FAULTS = {
    "features of another video, checksum made anew": other_features,
    "vision tokens permuted": permuted_tokens,
    "frames reversed": reversed_frames,
    "frames cropped": cropped_frames,
    "all positions zero": zero_positions,
    "adapter off in rollouts": adapter_off,
    "reference equal to policy": reference_is_policy,
    "rewards paid to shuffled completions": shuffled_rewards,
    "advantages negated": negated_advantages,
    "advantages rolled by one": rolled_advantages,
    "an optimiser that does nothing": idle_optimiser,
    "a nearly blank film": nearly_blank,
    "a gradient that is not a number": nan_gradient,
    "answers of other questions": other_answers,
    "every completion paid alike": constant_rewards,
    "rollouts at another temperature": colder_rollouts,
    "loss negated": negated_loss,
    "completions of the step before": stale_rollouts,
    "films exchanged before the run": exchanged_films,
    "answers wrong in the dataset as built": wrong_answers,
}
WHY_MISSED = {"answers wrong in the dataset as built":
              "nothing in a training knows the truth; a builder's tests do, and comparing rows with their scans"}

ODD = "def odd(completions, **kw): return [None if len(c) % 3 == 0 else len(c) % 2 for c in completions]"

SOUND = {f"seed {k}": dict(seed=k) for k in range(5)} | {
    "think mode": dict(model="tiny-cot", mode="think"),
    "think mode, seed 1": dict(model="tiny-cot", mode="think", seed=1),
    "observe mode": dict(model="tiny-cot", mode="observe"),
    "two updates a rollout": dict(num_iterations=2),
    "three updates, micro-batches": dict(num_iterations=3, micro_groups=2),
    "micro-batches": dict(micro_groups=2),
    "no penalty": dict(beta=0.),
    "no penalty, no reference": dict(beta=0., track_kl=False),
    "a large penalty": dict(beta=.04),
    "blind on purpose": dict(blank=True),
    "checkpointed activations": dict(gradient_checkpointing=True),
    "three rewards": dict(rewards="accuracy:mra format*0.5 length:naive(0,16)*0.2"),
    "a reward of one's own that now and then pays nothing": dict(own=ODD),
    "SFT": dict(method="sft"),
    "DPO": dict(method="dpo"),
    "DPO on the model's own answers": dict(method="dpo", pairs="sampled"),
    "bfloat16": dict(dtype="bfloat16"),
    "two processes": dict(num_processes=2),
}


def steps_done(out): return len(Run(out).read_metrics()) if (out/"metrics.jsonl").is_file() else 0


def attempt(s, folder, out):
    "Train; (step in which it stopped or None, the message)."
    try: runs.train(s, open_dataset(folder), out)
    except (CheckFailed, BlindError, FloatingPointError) as e: return steps_done(out) + 1, f"{type(e).__name__}: {e}"
    except ValueError as e:
        if (out/"run.json").is_file(): raise      # an accident, not a check
        return 0, str(e)
    fallen = files.read_json(out/"collapse.json") if (out/"collapse.json").is_file() else {"reason": ""}
    if "not finite" in fallen["reason"]: return fallen["step"], fallen["reason"]
    if s.method != "grpo": return None, ""
    return None, "; ".join(warnings_of(Run(out).read_metrics(), Run(out).read_rollouts()))


def sound(name, given, folder, out):
    "A run that must come to its end."
    given = dict(given)
    dtype, processes, own = given.pop("dtype", None), given.pop("num_processes", 1), given.pop("own", None)
    if own:
        out.with_suffix(".py").write_text(own)
        given["rewards"] = f"accuracy:linear*0 {out.with_suffix('.py')}:odd"
    s = settings(**given)
    if processes > 1:
        runs.begin(s, open_dataset(folder), out, num_processes=processes)
        try: run_process.finish(run_process.start(out, processes, 1), out)
        except RuntimeError as e: return steps_done(out), str(e)[-400:]
        return None, ""
    honest = runs.load_model
    with patch.object(runs, "load_model", lambda *a, **kw: honest(*a, **kw, dtype=dtype)):
        return attempt(s, folder, out)


def run_faults(whole, tmp, word):
    "Plant each fault in a dataset of its own: name → (step in which it was caught or None, the message)."
    caught = {}
    for k, (name, plant) in enumerate((n, f) for n, f in FAULTS.items() if word in n):
        folder = Path(shutil.copytree(whole, tmp/f"data{k}"))
        (tmp/f"own{k}").mkdir()
        with plant(folder, tmp/f"own{k}"): caught[name] = attempt(settings(), folder, tmp/f"fault{k}")
        print(f"{name}: step {caught[name][0]}, {caught[name][1][:160]}", flush=True)
    return caught


def run_sound(whole, tmp, word):
    "False alarms (name → message) and the largest rollout gap of each sound run."
    alarms, gaps = {}, {}
    for k, (name, given) in enumerate((n, g) for n, g in SOUND.items() if word in n):
        step, message = sound(name, given, whole, tmp/f"sound{k}")
        if step is not None: alarms[name] = message
        metrics = Run(tmp/f"sound{k}").read_metrics()
        if "rollout_gap" in metrics: gaps[name] = float(metrics.rollout_gap.max())
        end = "to its end" if step is None else f"false alarm, {message[:300]}"
        print(f"sound: {name}: {end}; gap {gaps.get(name, float('nan')):.2g}", flush=True)
    return alarms, gaps


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="", help="a word in the names of faults and sound runs")
    word = p.parse_args().only
    torch.set_num_threads(1)
    tmp, begin = Path(tempfile.mkdtemp()), time.time()
    try:
        whole = build_rooms(tmp/"rooms", RoomsSpec(12, 2, 4), workers=2)
        with ExitStack() as patches:      # no cache of other runs
            for module, name in CACHES:
                patches.enter_context(patch.object(module, name, lambda name=name: tmp/"cache"/name))
            caught = run_faults(whole, tmp, word)
            alarms, gaps = run_sound(whole, tmp, word)
    finally: shutil.rmtree(tmp)
    soon = {name: step for name, (step, _) in caught.items() if step is not None and step <= 3}
    later = {name: message for name, (_, message) in caught.items() if name not in soon and message}
    missed = {name: WHY_MISSED.get(name, "unexplained") for name in caught if name not in soon and name not in later}
    print(json.dumps(dict(bench="sabotage",
                          faults=len(caught),
                          caught_within_3_steps=len(soon),
                          steps=soon,
                          caught_later=later,
                          missed=missed,
                          sound_runs=len([name for name in SOUND if word in name]),
                          false_alarms=alarms,
                          largest_rollout_gap=gaps,
                          seconds=round(time.time() - begin))))
    return bool(alarms) or len(soon) < .9*len(caught)


if __name__ == "__main__": sys.exit(main())
