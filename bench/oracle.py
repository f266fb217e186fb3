"""Do our scores of VideoMME, VideoMMMU and TempCompass equal lmms-eval's own?

    pip download --no-deps lmms-eval==0.6.1
    .venv/bin/python bench/oracle.py lmms_eval-0.6.1-py3-none-any.whl

Takes the functions of its tasks out of the wheel, without what they import, and asks them and us about thousands of made answers
(`tests/general_answers.py`, other seeds than the tests record). Nothing is asked of another model: where lmms-eval would, it says 0. The last line is one JSON object.
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
from vsgrpo.evaluation.benchmarks import BENCHMARKS, Files, score_items, format_prompt


def functions(wheel, task):
    "The functions and constants of a task's module."
    with zipfile.ZipFile(wheel) as z: tree = ast.parse(z.read(f"lmms_eval/tasks/{task}/utils.py"))
    kept = [n for n in tree.body if isinstance(n, ast.FunctionDef) or isinstance(n, ast.Assign) and isinstance(n.value, (ast.Dict, ast.List, ast.Constant))]
    for n in kept:
        if isinstance(n, ast.FunctionDef):
            n.returns = None
            for a in n.args.args: a.annotation = None
    names = dict(re=re, np=np, defaultdict=defaultdict)
    exec(compile(ast.Module(kept, []), task, "exec"), names)
    return names


def theirs(task, f, row, said):
    "Their score of one answer; nan where their mean leaves it out."
    if task == "videomme": return f["videomme_process_results"](row, [said])["videomme_perception_score"]["score"]
    if task == "tempcompass":
        return float(f[f"tempcompass_process_results_{'yes_no' if row['form'] == 'yes_no' else 'multi_choice'}"](row, [said])["avg_accuracy"]["rating"])
    read = f["videommmu_process_results"](row, [said])["mmmu_acc"]
    return np.nan if read["parsed_pred"] == "API Error" else f["evaluate_videommmu"]([read])[1]["acc"]


def their_prompt(task, f, row):
    "Their prompt, where it does not come out of a settings file alone."
    if task == "videomme":
        return f["videomme_doc_to_text"](row,
                                         {"post_prompt": "\nAnswer with the option's letter from the given choices "
                                                         "directly."})
    if task == "tempcompass" or not row["options"] and row["track"] != "Adaptation": return None
    learn = dict(pre_prompt="You should watch and learn the video content. Then apply what you learned to ",
                 perception_and_comprehension_prompt="\nPlease ignore the Quiz question in last frame of the video.")
    learn |= {k: f"answer the following {form} question. The image for this question is at the end of the video.\n"
              for k, form in (("mcq_prompt", "multi-choice"), ("open_ended_prompt", "open-ended"))}
    return f[f"videommmu_doc_to_text_{'adaptation' if row['track'] == 'Adaptation' else 'perception_comprehension'}"](row, learn)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("wheel", type=Path)
    p.add_argument("--n", type=int, default=20000)
    args = p.parse_args()
    told = {}
    for task in ("videomme", "videommmu", "tempcompass"):
        bench, f, rows = BENCHMARKS[task], functions(args.wheel, task), getattr(made, task)(args.n, 100)
        f["get_eval_result"] = lambda prompt: (None, 0)
        items = [bench.item(r, Files("nowhere")) for r, _ in rows]
        ours, wanted = score_items(bench, items,
                                   [s for _, s in rows]), np.array([theirs(task, f, r, s) for r, s in rows])
        prompts = [(their_prompt(task, f, r), format_prompt(bench, i)) for (r, _), i in zip(rows, items)]
        told[task] = dict(answers=len(rows), scores_differ=int((~np.isclose(ours, wanted, equal_nan=True)).sum()),
                          left_out=int(np.isnan(wanted).sum()), right=round(float(np.nanmean(wanted)), 4),
                          prompts=sum(t is not None
                                      for t, _ in prompts), prompts_differ=sum(t is not None and t != o
                                      for t, o in prompts))
        print(task, told[task], flush=True)
    print(json.dumps(dict(bench="oracle", wheel=args.wheel.name, **told)))


if __name__ == "__main__":
    main()
