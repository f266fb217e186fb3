"""What SFT, DPO and GRPO cost in general ability, over several seeds.

    .venv/bin/python bench/general.py                          # tiny-general, five seeds
    .venv/bin/python bench/general.py --seeds 1 --scale smoke  # that the bench itself works

Chapter 30 trains, chapter 40 evaluates. Shown are each method's spatial gain and its difference to the base on the
general set, and GRPO's difference to the others, with 95 % intervals (over seeds where there are three). The last line
is one JSON object.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from vsgrpo.training.studies import difference
from vsgrpo.doctor import repo_root
from vsgrpo.evaluation.answer_store import EvalResults
from vsgrpo.evaluation.records import Run, git_commit
from vsgrpo.training.adapters import retention, trained_adapters
from vsgrpo.training.general_ability import change_sentences, general_changes, grpo_minus_sft, kept_sentence

MODEL = "tiny-general"


def run_chapter(name, folder, scale, **given):
    "Run a chapter's notebook with parameters."
    parameters = dict(given, model=MODEL, scale=scale)
    words = [word for key, value in parameters.items() for word in ("-p", key, str(value))]
    subprocess.run([sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar",
                    f"nbs/{name}.ipynb", str(folder/f"{name}.ipynb"), *words], cwd=repo_root(), check=True)


def rounded(interval): return [round(float(x), 2) for x in interval]


def differences(evals, method, others):
    "A method's difference to others on each benchmark, with intervals: benchmark → other → numbers."
    titles = list(dict.fromkeys(evals.benchmark))
    return {title: {other: rounded(retention(evals, method, other, title)) for other in others} for title in titles}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--scale", default="default")
    args = p.parse_args()
    begin, folder = time.time(), Path(tempfile.mkdtemp())
    methods = "grpo sft dpo:other"
    run_chapter("30_baselines", folder, args.scale, seeds=args.seeds, methods=methods, out=folder/"trained")
    run_chapter("40_general_eval", folder, args.scale, runs=folder/"trained", out=folder/"general")
    runs, scores = trained_adapters(folder/"trained", MODEL), pd.read_csv(folder/"general"/"scores.csv")
    results = [EvalResults(folder/"general"/name) for name in scores.store]
    evals = scores[["arm", "seed", "benchmark"]].assign(results=results)
    arms = [arm for arm in dict.fromkeys(evals.arm) if arm != "base"]
    spatial = {arm: difference(runs, arm, "base") for arm in arms}
    minus_base = {title: {arm: rounded(retention(evals, arm, benchmark=title)) for arm in arms}
                  for title in dict.fromkeys(evals.benchmark)}
    figures = dict(
        seeds=args.seeds,
        commit=Run(folder/"general").read_settings()["commit"] or git_commit(repo_root()),
        seconds=round(time.time() - begin),
        spatial_minus_base={arm: rounded(interval) for arm, interval in spatial.items()},
        scores=scores.drop(columns="store").round(2).to_dict("records"),
        minus_base=minus_base,
        grpo_minus=differences(evals, "vsGRPO-V", [arm for arm in arms if arm != "vsGRPO-V"]))
    changes = general_changes(evals, spatial, MODEL)
    print("\n".join([*change_sentences(changes), kept_sentence(grpo_minus_sft(evals))]))
    print(json.dumps(dict(bench="general", **figures)))


if __name__ == "__main__":
    main()
