"""The reproduction ledger: every cell of the paper's Tables 1-3, and its figures, beside what was run.

    python docs/ledger.py           # reads the run folders under runs/ and writes docs/ledger.json; what it does not find there stays as it was
    python docs/ledger.py FOLDER    # reads another folder of runs

The page is made from that file (`ledger_page`). A cell that nobody ran is a grey dash.
"""
import html
import json
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORE = Path(__file__).with_name("ledger.json")
SHORT = ("overall", "count", "abs. dist.", "size", "room", "rel. dist.", "direction", "route", "order")
FIGURES = ( # number, what it shows, where ours is drawn
    (1, "thinking answers wrongly what simply asking answers rightly", "nbs/00_prompting.ipynb"),
    (2, "one question of each kind in its scan", "nbs/10_build_vsi100k.ipynb"),
    (3, "an answer before and after training", "nbs/24_explorer.ipynb"),
    (4, "without the KL penalty the format reward collapses", "nbs/28_studies.ipynb"),
    (5, "format is learnt before accuracy", "nbs/28_studies.ipynb"))


def size(model):
    "2B or 7B for the paper's models, else the name of what was run."
    known = {"Qwen/Qwen2-VL-2B-Instruct": "2B", "Qwen/Qwen2-VL-7B-Instruct": "7B"}
    return known.get(model, known.get("Qwen/" + Path(model).name, Path(model).name))


def settings(folder): return json.loads((folder/"run.json").read_text("utf-8"))["settings"]


def entry(table, folder, row, cells, about):
    "One row of the ledger."
    run = json.loads((folder/"run.json").read_text("utf-8"))
    return dict(table=table, model=size(run["settings"].get("model", "")), row=row,
                cells={k: round(float(v), 1) for k, v in cells.items() if v == v}, run=folder.name,
                commit=(run.get("commit") or "")[:7], about=about)


def prompting(folder):
    scores = pd.read_csv(folder/"scores.csv")
    n = int(scores.n[scores.question_type == "overall"].max()) if (scores.question_type == "overall").any() else int(scores.n.sum())
    for name, of in scores[scores.name.isin(["vanilla", "think", "observe"])].groupby("name", sort=False):
        yield entry(1, folder, f"{name.capitalize()}-mode", of.set_index("question_type").score, f"{n} questions")


def baselines(folder):
    found = {}
    for run in sorted(folder.glob("*/scores.csv")):
        s, scores = settings(run.parent), pd.read_csv(run)
        method = {"grpo": "vsGRPO-V", "sft": "SFT", "dpo": "DPO"}[s["method"]]
        if s["method"] == "dpo" and s["pairs"] == "sampled": continue      # the paper's row has made pairs
        for row, arm in (("base", "base"), (method, "trained")):
            found.setdefault(row, []).append((run.parent, scores[scores.arm == arm].set_index("question_type").score))
    for row, of in found.items():
        yield entry(2, of[0][0], f"{row} V", pd.concat([s for _, s in of], axis=1).mean(axis=1),
                    f"{len(of)} run{'s' if len(of) > 1 else ''}") | dict(run=folder.name)


def modes(folder):
    "vsGRPO-T and vsGRPO-O: asked in their own mode, and in vanilla."
    scores, letter = pd.read_csv(folder/"scores.csv"), settings(folder)["mode"][0].upper()
    for asked, arm in ((letter, "trained"), ("V", "trained_vanilla")):
        if len(of := scores[scores.arm == arm]):
            yield entry(2, folder, f"vsGRPO-{letter} {asked}", of.set_index("question_type").score, "1 run")


def general(folder):
    scores = pd.read_csv(folder/"scores.csv")
    for arm, of in scores[scores.benchmark.isin(["VideoMMMU", "VideoMME"])].groupby("arm", sort=False):
        if arm == "DPO sampled": continue
        seeds, n = of.seed.nunique(), int(of.groupby("benchmark").n.max().sum())
        yield entry(3, folder, arm.split()[0], of.groupby("benchmark").score.mean(),
                    f"{n} questions" + (f", {seeds} runs" if seeds > 1 else ""))


def collect(runs):
    "Of each kind and model the finished run that tells most, else the newest."
    for pattern, read in (("prompting*", prompting), ("baselines*", baselines), ("grpo-*-think-*", modes),
                          ("grpo-*-observe-*", modes), ("study/modes/*-[to]*-s0", modes), ("general*", general)):
        newest = {}
        finished = [p.parent for p in Path(runs).glob(f"{pattern}/run.json") if (p.parent/"scores.csv").is_file()]
        # more rows, more runs, newer
        for folder in sorted(finished, key=lambda p: (len(pd.read_csv(p/"scores.csv")),
                                                      len(list(p.glob("*/scores.csv"))), p.stat().st_mtime)):
            newest[size(json.loads((folder/"run.json").read_text("utf-8"))["settings"].get("model", "")),
                   folder.name if read is modes and "study" in pattern else ""] = folder
        for folder in newest.values(): yield from read(folder)


def cell(value): return '<td class="notrun">–</td>' if value is None else f"<td>{value:.1f}</td>"


def lines(paper, columns, known, table, label):
    "For each row of the paper: its figures, ours of the same model, and ours of another, smaller one."
    out = []
    for row, printed, model in paper:
        ours = next((e for e in known if e["table"] == table and e["row"] == row and e["model"] == model), None)
        out.append(f'<tr class="paper"><th>{html.escape(label(row, model))}</th><td>paper</td>'
                   + "".join(cell(printed.get(c)) for c in columns) + "<td></td></tr>")
        out.append("<tr><th></th><td>ours</td>"
                   + "".join(cell((ours or {"cells": {}})["cells"].get(c))
                             for c in columns) + f"<td>{html.escape(source(ours))}</td></tr>")
        for e in known:
            if model == "2B" and e["table"] == table and e["row"] == row and e["model"] not in ("2B", "7B"):
                out.append(f'<tr class="tiny"><th></th><td>{html.escape(e["model"])}</td>'
                           + "".join(cell(e["cells"].get(c))
                                     for c in columns) + f"<td>{html.escape(source(e))}</td></tr>")
    return out


def source(e):
    return "" if e is None else f"{e['run']}, {e['about']}" + (f", commit {e['commit']}" if e["commit"] else "")


def figure_findings(root):
    "What the newest kept study says of Figures 4 and 5, in the sentences that it made from its runs; the others are pictures, drawn in their notebooks."
    found = sorted((Path(root)/"bench"/"results").glob("study-*.json"))
    if not found: return {}
    study = json.loads(found[-1].read_text("utf-8"))
    told, about = study["kl"]["found"], f" ({study['model']}, {study['kl']['runs']} runs, {found[-1].name})"
    return {4: " ".join(t for t in told if t.startswith(("Collapsed", "Without"))) + about,
            5: " ".join(t for t in told if "Nine tenths" in t) + about}


def block(title, heads, body):
    return f"## {title}\n\n<div class=\"wide\"><table class=\"ledger\"><tr><th></th><th></th>{''.join(f'<th>{h}</th>' for h in heads)}<th>where from</th></tr>\n" + "\n".join(body) + "</table></div>\n"


def ledger_page(root=ROOT):
    "The page, in Markdown with tables."
    from vsgrpo.general_eval import paper_general
    from vsgrpo.evaluation.vsibench import TASKS
    from vsgrpo.evaluation.scores import paper_table
    known = json.loads(STORE.read_text("utf-8")) if STORE.is_file() else []
    columns, parts = ["overall", *TASKS], []
    for table, title in ((1, "Table 1: prompting"), (2, "Table 2: training")):
        printed = paper_table(table)
        rows = [(f"{r.method} {r.eval_mode}" if table == 2 else r.method, {c: getattr(r, c) for c in columns},
                 r.model.split("-")[-1]) for r in printed.itertuples() if r.method != "reference"]
        parts.append(block(title, SHORT, lines(rows, columns, known, table, lambda row, model: f"{model} {row}")))
    general_, names = paper_general(), ["VideoMMMU", "VideoMME"]
    rows = [(m, {n: general_.loc[m, f"{n} {s}"] for n in names}, s) for s in ("2B", "7B") for m in general_.index]
    parts.append(block("Table 3: general ability", names,
                       lines(rows, names, known, 3, lambda row, model: f"{model} {row}")))
    found = figure_findings(root)
    figures = "\n".join(f"| {k} | {what} | [{Path(where).stem}]({where}) | "
                        f"{html.escape(found.get(k, 'drawn there, on generated rooms with a tiny model'))} |"
                        for k, what, where in FIGURES)
    return ("# Reproduction ledger\n\nEvery cell of the paper's Tables 1 to 3 beside what was run here. *Ours* is the "
            "paper's own model on the paper's own benchmark; a grey dash was not run. "
            "Below it, smaller: tiny models on generated rooms, which say that the machinery works and in which "
            "direction a claim points, and nothing of the 2B's height. "
            "`make ledger` fills it from the run folders under `runs/`.\n\n" + "\n".join(parts) + "\n## Figures\n\n| figure | what it shows | where ours is | what came out |\n|---|---|---|---|\n" + figures + "\n")


def main():
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT/"runs"
    known = {(e["table"], e["model"], e["row"]): e
             for e in (json.loads(STORE.read_text("utf-8")) if STORE.is_file() else [])}
    known |= {(e["table"], e["model"], e["row"]): e for e in collect(runs)}
    STORE.write_text(json.dumps([known[k] for k in sorted(known)], indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{STORE}: {len(known)} rows")


if __name__ == "__main__":
    main()
