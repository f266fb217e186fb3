"""Do our scores of VideoMME, VideoMMMU and TempCompass equal lmms-eval's own?

    pip download --no-deps lmms-eval==0.6.1
    .venv/bin/python bench/oracle.py lmms_eval-0.6.1-py3-none-any.whl

Takes the functions of its tasks out of the wheel, without what they import, and compares their scores of thousands of
made answers (`tests/general_answers.py`, other seeds than the tests record) with ours. No other model is asked: where
lmms-eval would ask one, the score is 0. The last line is one JSON object.
"""
import argparse
import ast
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]/"tests"))
import general_answers as made
from vsgrpo.evaluation.benchmark_scores import format_prompt, score_items
from vsgrpo.evaluation.benchmarks import BENCHMARKS, Files


def functions(wheel, task):
    "The functions and constants of a task's module."
    with zipfile.ZipFile(wheel) as z: tree = ast.parse(z.read(f"lmms_eval/tasks/{task}/utils.py"))
    def is_constant(node):
        return isinstance(node, ast.Assign) and isinstance(node.value, (ast.Dict, ast.List, ast.Constant))
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef) or is_constant(node)]
    for node in kept:
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in node.args.args: argument.annotation = None
    names = dict(re=re, np=np, defaultdict=defaultdict)
    exec(compile(ast.Module(kept, []), task, "exec"), names)
    return names


def their_score(task, names, row, text):
    "Their score of one answer; nan where their mean leaves it out."
    if task == "videomme":
        return names["videomme_process_results"](row, [text])["videomme_perception_score"]["score"]
    if task == "tempcompass":
        form = "yes_no" if row["form"] == "yes_no" else "multi_choice"
        return float(names[f"tempcompass_process_results_{form}"](row, [text])["avg_accuracy"]["rating"])
    read = names["videommmu_process_results"](row, [text])["mmmu_acc"]
    return np.nan if read["parsed_pred"] == "API Error" else names["evaluate_videommmu"]([read])[1]["acc"]


def their_prompt(task, names, row):
    "Their prompt; None where it comes out of a settings file alone."
    if task == "videomme":
        post = "\nAnswer with the option's letter from the given choices directly."
        return names["videomme_doc_to_text"](row, {"post_prompt": post})
    is_adaptation = row.get("track") == "Adaptation"
    if task == "tempcompass" or not row["options"] and not is_adaptation: return None
    learn = dict(pre_prompt="You should watch and learn the video content. Then apply what you learned to ",
                 perception_and_comprehension_prompt="\nPlease ignore the Quiz question in last frame of the video.")
    for key, form in (("mcq_prompt", "multi-choice"), ("open_ended_prompt", "open-ended")):
        learn[key] = f"answer the following {form} question. The image for this question is at the end of the video.\n"
    return names[f"videommmu_doc_to_text_{'adaptation' if is_adaptation else 'perception_comprehension'}"](row, learn)


def compare(task, wheel, n):
    "Counts of scores and prompts that differ between lmms-eval and us."
    bench, names, pairs = BENCHMARKS[task], functions(wheel, task), getattr(made, task)(n, 100)
    names["get_eval_result"] = lambda prompt: (None, 0)
    items = [bench.item(row, Files("nowhere")) for row, _ in pairs]
    ours = score_items(bench, items, [text for _, text in pairs])
    theirs = np.array([their_score(task, names, row, text) for row, text in pairs])
    prompts = [(their_prompt(task, names, row), format_prompt(bench, item)) for (row, _), item in zip(pairs, items)]
    prompts = [pair for pair in prompts if pair[0] is not None]
    return dict(answers=len(pairs), scores_differ=int((~np.isclose(ours, theirs, equal_nan=True)).sum()),
                left_out=int(np.isnan(theirs).sum()), right=round(float(np.nanmean(theirs)), 4),
                prompts=len(prompts), prompts_differ=sum(their != our for their, our in prompts))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("wheel", type=Path)
    p.add_argument("--n", type=int, default=20000)
    args = p.parse_args()
    counts = {}
    for task in ("videomme", "videommmu", "tempcompass"):
        counts[task] = compare(task, args.wheel, args.n)
        print(task, counts[task], flush=True)
    print(json.dumps(dict(bench="oracle", wheel=args.wheel.name, **counts)))


if __name__ == "__main__":
    main()
