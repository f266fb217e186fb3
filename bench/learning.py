"""Does GRPO teach the tiny model, and does it teach it to look?

    .venv/bin/python bench/learning.py                 # 5 seeds, about half an hour on 2 cores
    .venv/bin/python bench/learning.py --grpo-only     # without the blind and the fine-tuned arm, 17 minutes
    .venv/bin/python bench/learning.py --grpo-only --per-scene 1   # and GRPO with a step's questions drawn one by one
    .venv/bin/python bench/learning.py --seeds 1 --scale smoke

For each seed, on the same generated rooms: GRPO as in nbs/20_grpo.ipynb (`trained`, and `trained_shuffled`, the same
questions with another room's video), GRPO with blanked videos (`trained_without_sight`, trained and evaluated blind),
and fine-tuning on the true answers of the same rows, as many questions, at the same learning rate (`sft`; nothing was
tuned for it). `--per-scene N` adds GRPO with N questions of a step about each scene (`trained_N_a_scene`): as many
questions, from more or fewer rooms. `base` and `constant` do not depend on the seed. The last line is one JSON object:
mean scores over seeds, and for each pair of arms the mean paired difference with its 95 % t-interval over seeds. The
300 rooms are the same for all seeds: what other rooms would change is not in these intervals, but in those of each
run's scores.csv.
"""
import argparse
import json
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from vsgrpo.data.dataset import build_rooms, open_dataset
from vsgrpo.doctor import repo_root
from vsgrpo.evaluation.generate import PARSER, arm_scores
from vsgrpo.evaluation.scores import best_constant, t_interval
from vsgrpo.training import runs
from vsgrpo.training.settings import SCALES, default_settings

PAIRS = [("trained", "base"), ("trained", "constant"), ("trained", "trained_shuffled"),
         ("trained", "trained_without_sight"), ("sft", "base"), ("trained", "sft")]


def one_seed(job):
    "All arms of one seed: a table of scores, the seconds each training took, and the settings."
    scale, seed, folder, lr, controls, per_scene = job
    import torch
    torch.set_num_threads(1)
    out = Path(folder)/f"seed{seed}"
    data = open_dataset(repo_root()/f"runs/data/overview-{scale}-0")
    settings = default_settings(scale, "tiny", seed=seed, **({"lr": lr} if lr else {}))
    answers, seconds = {}, {}

    def add_arm(arm, arm_settings, run_folder, **kw):
        "Train an arm and evaluate it."
        start = time.perf_counter()
        model, processor = runs.train(arm_settings, data, run_folder)
        seconds[arm] = time.perf_counter() - start
        return runs.evaluate(arm_settings, model, processor, data, run_folder, **kw)

    answers |= add_arm("trained", settings, out/"grpo")
    others = [] # arm, its settings, its folder
    if per_scene:
        arm = f"trained_{per_scene}_a_scene"
        others.append((arm, replace(settings, questions_per_scene=per_scene), out/arm))
    if controls:
        others.append(("trained_without_sight", replace(settings, blank=True), out/"blind"))
        others.append(("sft", replace(settings, method="sft"), out/"sft"))
    for arm, arm_settings, run_folder in others:
        answers[arm] = add_arm(arm, arm_settings, run_folder, arms=("trained",))["trained"]
    return arm_scores(answers, data.test, PARSER[settings.mode]).assign(seed=seed), seconds, asdict(settings)


def paired_differences(wide, types, pairs):
    "For each pair of arms, by question type: mean difference over seeds and its 95 % t-interval."
    differences = {}
    for a, b in pairs:
        if not {a, b} <= set(wide): continue
        by_seed = wide[a] - wide[b]
        differences[f"{a} - {b}"] = {
            t: [round(x, 2) for x in t_interval(by_seed.xs(t, level="question_type").to_numpy())] for t in types}
    return differences


def print_differences(differences, types):
    texts = {pair: {t: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*values) for t, values in by_type.items()}
             for pair, by_type in differences.items()}
    print(pd.DataFrame(texts).reindex(types).to_string())


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--scale", default="default", choices=["smoke", "default"])
    p.add_argument("--lr", type=float, help="learning rate of every arm; default: the notebook's")
    p.add_argument("--workers", type=int, default=2, help="seeds at the same time, one thread each")
    p.add_argument("--grpo-only", action="store_true", help="leave out the arms trained blind and fine-tuned")
    p.add_argument("--per-scene", type=int, default=0,
                   help="questions of a step about each scene, for a second GRPO arm")
    p.add_argument("--out", help="folder for the runs; default: a new one under runs/")
    return p.parse_args()


def main():
    args, root = arguments(), repo_root()
    folder = root/(args.out or f"runs/learning-{time.strftime('%Y%m%d-%H%M%S')}")
    data = open_dataset(build_rooms(root/f"runs/data/overview-{args.scale}-0", SCALES[args.scale]["rooms"]))
    jobs = [(args.scale, seed, folder, args.lr, not args.grpo_only, args.per_scene) for seed in range(args.seeds)]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        scores, seconds, settings = zip(*pool.map(one_seed, jobs))
    scores = pd.concat(scores)
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_csv(folder/"scores.csv", index=False)
    types = list(scores.question_type.unique())
    mean = scores.groupby(["question_type", "arm"]).score.mean().unstack().reindex(types).round(1)
    print(mean.to_string())
    wide = scores.pivot(index=["seed", "question_type"], columns="arm", values="score")
    differences = paired_differences(wide, types, [*PAIRS, ("trained", f"trained_{args.per_scene}_a_scene")])
    print_differences(differences, types)
    print(json.dumps(dict(
        bench="learning",
        seeds=args.seeds,
        rooms=len({q.scene_name for q in data.test}),
        questions=len(data.test),
        machine=platform.machine(),
        settings={k: v for k, v in settings[0].items() if k != "seed"},
        constants=best_constant(data.train_benchmark),
        seconds={arm: round(float(np.mean([s[arm] for s in seconds])), 1) for arm in seconds[0]},
        scores={arm: mean[arm].to_dict() for arm in mean},
        differences=differences)))


if __name__ == "__main__": sys.exit(main())
