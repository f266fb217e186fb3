"""What does it cost to look at the rollouts of a long run?

    .venv/bin/python bench/rollouts.py              # 10^6 rollouts: over half an hour on one core, 2 GB of disk
    .venv/bin/python bench/rollouts.py --rows 5000  # that the bench itself works

A made run, written as training writes it: 14 rollouts to a question, 8 questions a step, about 1.7 kB a rollout, and
the dataset that it is about. Then what the closing cells of the chapters call, each in a process of its own: seconds
and the highest resident memory, beside that of a process that imports the same and reads nothing (`nothing`; it begins
with what the bench itself holds, so lower peaks are not seen). The folder is removed. The last line is one JSON object.
"""
import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vsgrpo.training.explorer import explore_run, open_run, reward_lab
from vsgrpo.training.run_page import write_page
from vsgrpo.training.rollouts import Rollouts
from vsgrpo.evaluation.records import Run, read_metrics
from vsgrpo.training.sharing import card_text
from vsgrpo.evaluation.vsibench import Question
from vsgrpo.evaluation.rows import write_questions
from vsgrpo.training.watch import hack_table, warnings_of

GROUP, QUESTIONS = 14, 8 # rollouts to a question, questions a step
WORDS = "the chair stands left of a table near that wall and I count one two three more from here to there".split()


def make_question(k):
    "One of ten a room, numbers all, as the builder writes them."
    room, distance_m = f"room_{k//10:06d}", 1 + k % 50/10
    return Question(
        id=f"{room}-object_abs_distance-{k % 10}",
        dataset="generated",
        scene_name=room,
        question_type="object_abs_distance",
        question="What is the distance between the chair and the table (in meters)?",
        ground_truth=f"{distance_m:.1f}",
        provenance={"objects": [k % 7, 8], "points": [[.1*k, 1., 2.], [2., 1., 0.]], "distance_m": distance_m})


def completion(rng, answer):
    return f"<think>{' '.join(rng.choice(WORDS, 270))}</think> <answer>{answer:.1f}</answer>"


def rollout_row(step, q, completion, accuracy):
    "A rollout as training records it."
    return dict(step=step, id=q.id, scene_name=q.scene_name, question_type=q.question_type,
                question=f"These are frames of a video.\n{q.question}", mode="think", ground_truth=q.ground_truth,
                options=None, completion=completion, n_tokens=200, accuracy_reward=accuracy, format_reward=1.,
                reward=1 + accuracy, advantage=accuracy - .5)


def write_run(folder, rows):
    "Fill a run folder, a step at a time; some texts are drawn once and used again."
    rng, run = np.random.default_rng(0), Run(folder)
    steps, texts = -(-rows//(GROUP*QUESTIONS)), [completion(rng, x) for x in rng.uniform(0, 9, 500)]
    questions = [make_question(k) for k in range(steps*QUESTIONS)]
    (folder/"data").mkdir()
    write_questions(questions, folder/"data"/"train.parquet")
    run.write_settings(dict(model="tiny", mode="think", data=str(folder/"data"), steps=steps, num_generations=GROUP),
                       seed=0, dataset=questions)
    for step in range(steps):
        of_step = questions[step*QUESTIONS:(step + 1)*QUESTIONS]
        run.log_rollouts([rollout_row(step + 1, q, texts[rng.integers(500)], float(accuracy))
                          for q in of_step for accuracy in rng.random(GROUP).round(3)])
        run.log_metrics(step + 1, {"reward": 1.5, "kl": .001, "loss": 0.})
    return steps


def closing_cells(folder):
    "Chapter 20: the signs of trouble, the patterns, the last group."
    rollouts = Rollouts(folder)
    patterns = hack_table(rollouts)
    last = rollouts.read(rollouts.steps[-10:])
    return len(patterns), warnings_of(read_metrics(folder), last)


def resume(folder):
    "What a resumed training does to the record: drop the last step, and append another."
    run = Run(folder)
    dropped = run.truncate_after(len(read_metrics(folder)) - 1)
    run.logs[run.rollouts_path].append([])
    return dropped


CALLS = {
    "nothing": lambda folder: None,
    "closing_cells": closing_cells,
    "write_page": lambda folder: write_page(folder).stat().st_size,
    "open_run": lambda folder: len(open_run(folder).groups),
    "explore_run": lambda folder: len(explore_run(folder).children),
    "reward_lab": lambda folder: reward_lab(folder).children[0].children[1].label,
    "card_text": lambda folder: len(card_text(folder)),
    "resume": resume,
}


def measure(name, folder):
    "One call in a process of its own; its last line is a JSON object."
    done = subprocess.run([sys.executable, __file__, "--call", name, "--folder", str(folder)], capture_output=True,
                          text=True)
    if done.returncode: raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rows", type=int, default=10**6)
    p.add_argument("--call", choices=list(CALLS), help="used by the bench itself")
    p.add_argument("--folder", type=Path)
    args = p.parse_args()
    if args.call:
        begin = time.perf_counter()
        CALLS[args.call](args.folder)
        print(json.dumps(dict(seconds=round(time.perf_counter() - begin, 1),
                              peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)))
        return
    folder = Path(tempfile.mkdtemp())/"run"
    folder.mkdir()
    try:
        begin = time.perf_counter()
        steps = write_run(folder, args.rows)
        size, written = (folder/"rollouts.jsonl").stat().st_size, time.perf_counter() - begin
        print(f"{size/1e9:.2f} GB in {steps} steps, written in {written:.0f} s", flush=True)
        found = {}
        for name in CALLS:
            found[name] = measure(name, folder)
            print(f"{name:14}{found[name]['seconds']:8.1f} s  {found[name]['peak_mb']:6} MB", flush=True)
    finally: shutil.rmtree(folder.parent)
    print(json.dumps(dict(bench="rollouts", date=str(date.today()), rows=steps*GROUP*QUESTIONS, steps=steps,
                          gigabytes=round(size/1e9, 2), written_s=round(written), calls=found,
                          python=platform.python_version(), cores=os.cpu_count())))


if __name__ == "__main__": main()
