"""SFT, DPO and GRPO on the same questions, over several seeds.

    .venv/bin/python bench/baselines.py                          # chapter 30 with three seeds
    .venv/bin/python bench/baselines.py --runs runs/baselines-…  # what a run folder of chapter 30 says
    .venv/bin/python bench/baselines.py --seeds 1 --scale smoke  # that the bench itself works

Prints each method's held-out score, its difference to the base and to GRPO with 95 % intervals (over seeds where
there are three), and the score with another room's video. The last line is one JSON object.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vsgrpo.doctor import repo_root
from vsgrpo.evaluation.records import Run, git_commit
from vsgrpo.training.adapters import trained_adapters
from vsgrpo.evaluation.vsibench import TASKS
from vsgrpo.training.baseline_tables import equal_terms, read_curves
from vsgrpo.training.studies import all_scores, difference


def run_chapter(folder, seeds, scale):
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", "nbs/30_baselines.ipynb",
            str(folder.parent/"30.ipynb"), "-p", "seeds", str(seeds), "-p", "scale", scale, "-p", "out", str(folder)]
    subprocess.run(call, cwd=repo_root(), check=True)


def rounded(numbers): return [round(float(x), 2) for x in numbers]


def arm_results(runs, arm, mean):
    "Scores of an arm, and its differences to the base and to GRPO."
    shuffled = mean(arm, "trained_shuffled").get("overall")
    minus_base = {t: rounded(difference(runs, arm, "base", t)) for t in ("overall", *TASKS)}
    results = dict(score=mean(arm, "trained"), another_video=shuffled, minus_base=minus_base)
    if "vsGRPO-V" in set(runs.arm) - {arm}: results["grpo_minus_it"] = rounded(difference(runs, "vsGRPO-V", arm))
    return results


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=Path)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--scale", default="default")
    args = p.parse_args()
    begin, folder = time.time(), args.runs or Path(tempfile.mkdtemp())/"runs"
    if not args.runs: run_chapter(folder, args.seeds, args.scale)
    runs = trained_adapters(folder, "tiny")
    scores = all_scores(runs)
    def mean(arm, shown):
        rows = scores[(scores.arm == arm) & (scores.shown == shown)]
        return rows.groupby("question_type").score.mean().round(2).to_dict()
    results = {"base": mean(runs.arm.iloc[0], "base")}
    for arm in runs.arm.unique():
        results[arm] = arm_results(runs, arm, mean)
        overall = results[arm]["score"]["overall"]
        print(f"{arm:12s} {overall:5.1f}  minus base {results[arm]['minus_base']['overall']}")
    if all(Run(f).curve_path.is_file() for f in runs.folder):
        results["equal_terms"] = equal_terms(read_curves(runs)).T.to_dict()
    commit = Run(runs.folder.iloc[0]).read_settings()["commit"] or git_commit(repo_root())
    seconds = None if args.runs else round(time.time() - begin)
    summary = dict(bench="baselines", seeds=int(runs.seed.nunique()), commit=commit, seconds=seconds)
    print(json.dumps(summary | results))


if __name__ == "__main__":
    main()
