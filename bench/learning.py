"""Does GRPO teach the tiny model, and does it teach it to look?

    .venv/bin/python bench/learning.py                 # 5 seeds, about half an hour on 2 cores
    .venv/bin/python bench/learning.py --grpo-only     # without the blind and the fine-tuned arm, 17 minutes
    .venv/bin/python bench/learning.py --grpo-only --per-scene 1   # and GRPO with the questions of a step drawn one by one
    .venv/bin/python bench/learning.py --seeds 1 --scale smoke

For each seed, on the same generated rooms: GRPO as in nbs/20_grpo.ipynb (`trained`, and `trained_shuffled`, the same answers
asked with another room's video), GRPO with blanked videos (`trained_without_sight`, trained and asked blind), and fine-tuning on
the true answers of the same rows, as many questions, at the same learning rate (`sft`; nothing was tuned for it). `--per-scene N`
adds GRPO with N questions of a step about each scene (`trained_N_a_scene`): as many questions, from more or fewer rooms. `base` and
`constant` do not depend on the seed. The last line is one JSON object: mean scores over seeds, and for each pair of arms the mean
paired difference with its 95 % t-interval over seeds. The 300 rooms are the same for all seeds: what other rooms would change is not
in these intervals, but in those of each run's scores.csv.
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

from vsgrpo.training.settings import default_settings
from vsgrpo.training.settings import SCALES
from vsgrpo.training import runs
from vsgrpo.evaluation.generate import PARSER, arm_scores
from vsgrpo.evaluation.scores import format_interval, t_interval
from vsgrpo.doctor import repo_root
from vsgrpo.data.dataset import build_rooms, open_dataset
from vsgrpo.evaluation.scores import best_constant

PAIRS = [("trained", "base"), ("trained", "constant"), ("trained", "trained_shuffled"),
         ("trained", "trained_without_sight"), ("sft", "base"), ("trained", "sft")]


def one_seed(job):
    "All arms of one seed: a table of scores with the seconds each training took."
    scale, seed, folder, lr, controls, per_scene = job
    import torch
    torch.set_num_threads(1)
    root, out = repo_root(), Path(folder)/f"seed{seed}"
    data = open_dataset(root/f"runs/data/overview-{scale}-0")
    s = default_settings(scale, "tiny", seed=seed, **({"lr": lr} if lr else {}))
    said, took = {}, {}
    start = time.perf_counter()
    model, processor = runs.train(s, data, out/"grpo")
    took["trained"] = time.perf_counter() - start
    said |= runs.evaluate(s, model, processor, data, out/"grpo")
    if per_scene:
        start, other, arm = time.perf_counter(), replace(s,
                                                         questions_per_scene=per_scene), f"trained_{per_scene}_a_scene"
        model, processor = runs.train(other, data, out/arm)
        took[arm] = time.perf_counter() - start
        said[arm] = runs.evaluate(other, model, processor, data, out/arm, arms=("trained",))["trained"]
    if controls:
        start, blind = time.perf_counter(), replace(s, blank=True)
        model, processor = runs.train(blind, data, out/"blind")
        took["trained_without_sight"] = time.perf_counter() - start
        said["trained_without_sight"] = runs.evaluate(blind, model, processor, data, out/"blind",
                                                      arms=("trained",))["trained"]
        start = time.perf_counter()
        sft = replace(s, method="sft")
        model, processor = runs.train(sft, data, out/"sft")
        took["sft"] = time.perf_counter() - start
        said["sft"] = runs.evaluate(sft, model, processor, data, out/"sft", arms=("trained",))["trained"]
    return arm_scores(said, data.test, PARSER[s.mode]).assign(seed=seed), took, asdict(s)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--scale", default="default", choices=["smoke", "default"])
    p.add_argument("--lr", type=float, help="learning rate of every arm; default: the notebook's")
    p.add_argument("--workers", type=int, default=2, help="seeds at the same time, one thread each")
    p.add_argument("--grpo-only", action="store_true", help="leave out the arms trained blind and fine-tuned")
    p.add_argument("--per-scene", type=int, default=0,
                   help="questions of a step about each scene, for a second GRPO arm")
    p.add_argument("--out", help="folder for the runs; default: a new one under runs/")
    args = p.parse_args()
    root = repo_root()
    folder = root/(args.out or f"runs/learning-{time.strftime('%Y%m%d-%H%M%S')}")
    data = open_dataset(build_rooms(root/f"runs/data/overview-{args.scale}-0", SCALES[args.scale]["rooms"]))
    jobs = [(args.scale, seed, folder, args.lr, not args.grpo_only, args.per_scene) for seed in range(args.seeds)]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(one_seed, jobs))
    scores = pd.concat([d[0] for d in done])
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_csv(folder/"scores.csv", index=False)
    wide = scores.pivot(index=["seed", "question_type"], columns="arm", values="score")
    tasks = [t for t in scores.question_type.unique()]
    mean = scores.groupby(["question_type", "arm"]).score.mean().unstack().reindex(tasks).round(1)
    print(mean.to_string())
    differences = {f"{a} - {b}": {t: [round(v, 2)
                                      for v in t_interval((wide[a] - wide[b]).xs(t, level="question_type").to_numpy())]
                                  for t in tasks}
                   for a, b in [*PAIRS, ("trained", f"trained_{args.per_scene}_a_scene")] if {a, b} <= set(wide)}
    print(pd.DataFrame({k: {t: format_interval(*v, "+") for t, v in d.items()}
                        for k, d in differences.items()}).reindex(tasks).to_string())
    told = dict(bench="learning", seeds=args.seeds, rooms=len({q.scene_name for q in data.test}),
                questions=len(data.test), machine=platform.machine(),
                settings={k: v for k, v in done[0][2].items() if k != "seed"},
                constants=best_constant(data.train_benchmark),
                seconds={k: round(float(np.mean([d[1][k] for d in done])), 1) for k in done[0][1]},
                scores={arm: mean[arm].to_dict() for arm in mean}, differences=differences)
    print(json.dumps(told))


if __name__ == "__main__": sys.exit(main())
