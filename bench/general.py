"""What SFT, DPO and GRPO cost in general ability, over several seeds.

    .venv/bin/python bench/general.py                          # chapter 30 trains tiny-general with five seeds, chapter 40 asks what came of it
    .venv/bin/python bench/general.py --seeds 1 --scale smoke  # that the bench itself works

Tells each method's spatial gain and its difference to the base on the general set, and GRPO's to SFT, with 95 % intervals (over seeds where
there are three). The last line is one JSON object.
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
from vsgrpo.general_eval import general_findings
from vsgrpo.training.adapters import retention, trained_adapters

MODEL = "tiny-general"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--scale", default="default")
    args = p.parse_args()
    begin, folder = time.time(), Path(tempfile.mkdtemp())
    def chapter(name, **given):
        words = [x for k, v in dict(given, model=MODEL, scale=args.scale).items() for x in ("-p", k, str(v))]
        subprocess.run([sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar",
                        f"nbs/{name}.ipynb", str(folder/f"{name}.ipynb"), *words], cwd=repo_root(), check=True)
    chapter("30_baselines", seeds=args.seeds, methods="grpo sft dpo:other", out=folder/"trained")
    chapter("40_general_eval", runs=folder/"trained", out=folder/"general")
    runs = trained_adapters(folder/"trained", MODEL)
    scores = pd.read_csv(folder/"general"/"scores.csv")
    results = [EvalResults(folder/"general"/name) for name in scores.store]
    evals = scores[["arm", "seed", "benchmark"]].assign(results=results)
    said = lambda d: [round(float(x), 2) for x in d]
    arms, titles = [a for a in dict.fromkeys(evals.arm) if a != "base"], list(dict.fromkeys(evals.benchmark))
    spatial = {a: difference(runs, a, "base") for a in arms}
    told = dict(seeds=args.seeds, commit=Run(folder/"general").read_settings()["commit"] or git_commit(repo_root()),
                seconds=round(time.time() - begin), spatial_minus_base={a: said(d) for a, d in spatial.items()},
                scores=scores.drop(columns="store").round(2).to_dict("records"),
                minus_base={n: {a: said(retention(evals, a, benchmark=n)) for a in arms} for n in titles},
                grpo_minus={n: {a: said(retention(evals, "vsGRPO-V", a, n)) for a in arms if a != "vsGRPO-V"}
                            for n in titles})
    print("\n".join(general_findings(evals, spatial, MODEL)))
    print(json.dumps(dict(bench="general", **told)))


if __name__ == "__main__":
    main()
