"""The reproduction ledger: the paper's Tables 1-3 and figures, and our results beside them.

    python docs/ledger.py           # reads the run folders under runs/ and updates docs/ledger.json;
                                    # rows without a run folder keep their scores
    python docs/ledger.py FOLDER    # reads another folder of runs

`ledger_page` makes the page from that file. A score that was not measured is a grey dash.
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
FIGURES = ( # number, what it shows, the notebook that draws ours
    (1, "questions that vanilla mode answers correctly and think mode does not", "nbs/00_prompting.ipynb"),
    (2, "one question of each type, drawn in its scan", "nbs/10_build_vsi100k.ipynb"),
    (3, "an answer before and after training", "nbs/24_explorer.ipynb"),
    (4, "without the KL penalty, the format reward collapses", "nbs/28_studies.ipynb"),
    (5, "the format is learnt before accuracy improves", "nbs/28_studies.ipynb"))
HEAD = """# Reproduction ledger

Each row of the paper's Tables 1 to 3 and, below it, our scores. In the rows *ours*, the paper's model was run on the \
paper's benchmark; a grey dash means that this was not run. The grey rows are tiny models on generated rooms. They \
show that the code works and whether an effect has the paper's direction; they say nothing about the scores of the 2B. \
Scores are points of 100, higher is better. The small numbers lead to the source of a row. `make ledger` fills the \
page from the run folders under `runs/`.
"""
METHODS = {"grpo": "vsGRPO-V", "sft": "SFT", "dpo": "DPO"}


# ---- reading runs

def model_size(model):
    "2B or 7B for the paper's models, else the model's own name."
    known = {"Qwen/Qwen2-VL-2B-Instruct": "2B", "Qwen/Qwen2-VL-7B-Instruct": "7B"}
    return known.get(model, known.get("Qwen/" + Path(model).name, Path(model).name))


def read_record(folder): return json.loads((folder/"run.json").read_text("utf-8"))


def read_settings(folder): return read_record(folder)["settings"]


def entry(table, folder, row, scores, about):
    "One row of the ledger, from the scores by column."
    record = read_record(folder)
    cells = {column: round(float(score), 1) for column, score in scores.items() if score == score}
    return dict(table=table, model=model_size(record["settings"].get("model", "")), row=row, cells=cells,
                run=folder.name, commit=(record.get("commit") or "")[:7], about=about)


def prompting_rows(folder):
    "Table 1: the three prompts."
    scores = pd.read_csv(folder/"scores.csv")
    overall = scores.n[scores.question_type == "overall"]
    n = int(overall.max()) if len(overall) else int(scores.n.sum())
    prompts = scores[scores.name.isin(["vanilla", "think", "observe"])]
    for name, rows in prompts.groupby("name", sort=False):
        yield entry(1, folder, f"{name.capitalize()}-mode", rows.set_index("question_type").score, f"{n} questions")


def baseline_rows(folder):
    "Table 2: base, SFT, DPO with constructed pairs (as in the paper) and vsGRPO, means over the runs of a study."
    found = {}
    for path in sorted(folder.glob("*/scores.csv")):
        settings, scores = read_settings(path.parent), pd.read_csv(path)
        if settings["method"] == "dpo" and settings["pairs"] == "sampled": continue
        for row, arm in (("base", "base"), (METHODS[settings["method"]], "trained")):
            of_arm = scores[scores.arm == arm].set_index("question_type").score
            found.setdefault(row, []).append((path.parent, of_arm))
    for row, runs in found.items():
        mean = pd.concat([scores for _, scores in runs], axis=1).mean(axis=1)
        about = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
        yield entry(2, runs[0][0], f"{row} V", mean, about) | dict(run=folder.name)


def mode_rows(folder):
    "Table 2: vsGRPO-T and vsGRPO-O, evaluated in their own mode and in vanilla mode."
    scores, letter = pd.read_csv(folder/"scores.csv"), read_settings(folder)["mode"][0].upper()
    for eval_mode, arm in ((letter, "trained"), ("V", "trained_vanilla")):
        rows = scores[scores.arm == arm]
        if len(rows):
            yield entry(2, folder, f"vsGRPO-{letter} {eval_mode}", rows.set_index("question_type").score, "1 run")


def general_rows(folder):
    "Table 3: VideoMME and VideoMMMU, means over seeds."
    scores = pd.read_csv(folder/"scores.csv")
    scores = scores[scores.benchmark.isin(["VideoMMMU", "VideoMME"])]
    for arm, rows in scores.groupby("arm", sort=False):
        if arm == "DPO sampled": continue
        n_seeds, n_questions = rows.seed.nunique(), int(rows.groupby("benchmark").n.max().sum())
        about = f"{n_questions} questions" + (f", {n_seeds} runs" if n_seeds > 1 else "")
        yield entry(3, folder, arm.split()[0], rows.groupby("benchmark").score.mean(), about)


READERS = ( # folders under runs/, their reader, and whether every folder is kept or only the best of its model
    ("prompting*", prompting_rows, False),
    ("baselines*", baseline_rows, False),
    ("grpo-*-think-*", mode_rows, False),
    ("grpo-*-observe-*", mode_rows, False),
    ("study/modes/*-[to]*-s0", mode_rows, True),
    ("general*", general_rows, False))


def collect(runs):
    "Rows of the finished runs. Of each kind and model the one with most scores, then most runs, then the newest."
    def completeness(folder):
        return len(pd.read_csv(folder/"scores.csv")), len(list(folder.glob("*/scores.csv"))), folder.stat().st_mtime
    for pattern, rows_of, keep_each in READERS:
        records = [p.parent for p in Path(runs).glob(f"{pattern}/run.json")]
        best = {}
        for folder in sorted((f for f in records if (f/"scores.csv").is_file()), key=completeness):
            best[model_size(read_settings(folder).get("model", "")), folder.name if keep_each else ""] = folder
        for folder in best.values(): yield from rows_of(folder)


# ---- the page

def cell_html(value): return '<td class="notrun">–</td>' if value is None else f"<td>{value:.1f}</td>"


def source(row):
    "Run, size and commit behind a row."
    if row is None: return ""
    return f"{row['run']}, {row['about']}" + (f", commit {row['commit']}" if row["commit"] else "")


def row_html(kind, head, who, cells, columns):
    "A row of the table; `kind` is its CSS class."
    cells = "".join(cell_html(cells.get(column)) for column in columns)
    return f"<tr{kind}>{head}<td>{who}</td>{cells}</tr>"


def note_link(table, row, notes):
    "The number of the note below the table that says where a row comes from; a new source is added to `notes`."
    if row is None: return ""
    text = source(row)
    if text not in notes: notes.append(text)
    number = notes.index(text) + 1
    return f' <a href="#source-{table}-{number}"><sup>{number}</sup></a>'


def row_group(table, printed, known, columns, label, notes):
    "One row of the paper, ours of the same model, and for the 2B ours of smaller models."
    name, scores, model = printed
    same = [row for row in known if row["table"] == table and row["row"] == name]
    ours = next((row for row in same if row["model"] == model), None)
    yield row_html(' class="paper"', f"<th>{html.escape(label(name, model))}</th>", "paper", scores, columns)
    yield row_html("", "<th></th>", f"ours{note_link(table, ours, notes)}", ours["cells"] if ours else {}, columns)
    if model != "2B": return
    for row in same:
        if row["model"] in ("2B", "7B"): continue
        who = html.escape(row["model"]) + note_link(table, row, notes)
        yield row_html(' class="tiny"', "<th></th>", who, row["cells"], columns)


def notes_html(table, notes):
    "The sources of a table's rows, numbered."
    items = "".join(f'<li id="source-{table}-{number}">{html.escape(text)}</li>'
                    for number, text in enumerate(notes, 1))
    return f'<ol class="sources">{items}</ol>\n' if notes else ""


def table_html(title, table, printed, columns, heads, label, known):
    "A table of the paper with our rows, as a section of the page."
    notes = []
    lines = [line for row in printed for line in row_group(table, row, known, columns, label, notes)]
    heads = "".join(f"<th>{head}</th>" for head in heads)
    return (f'## {title}\n\n<div class="wide"><table class="ledger"><tr><th></th><th></th>{heads}</tr>\n'
            + "\n".join(lines) + f"</table></div>\n{notes_html(table, notes)}")


def figure_findings(root):
    "Findings of the newest kept study about Figures 4 and 5, by figure; the other figures are in their notebooks."
    found = sorted((Path(root)/"bench"/"results").glob("study-*.json"))
    if not found: return {}
    study = json.loads(found[-1].read_text("utf-8"))
    sentences, about = study["kl"]["found"], f" ({study['model']}, {study['kl']['runs']} runs, {found[-1].name})"
    return {4: " ".join(s for s in sentences if s.startswith(("Collapsed", "Without"))) + about,
            5: " ".join(s for s in sentences if "Nine tenths" in s) + about}


def figures_table(root):
    "The paper's figures, the notebooks that draw ours, and their results."
    found, lines = figure_findings(root), []
    for number, what, where in FIGURES:
        outcome = html.escape(found.get(number, "drawn in that notebook, for a tiny model on generated rooms"))
        lines.append(f"| {number} | {what} | [{Path(where).stem}]({where}) | {outcome} |")
    head = ["## Figures", "", "| figure | what it shows | our notebook | result |", "|---|---|---|---|"]
    return "\n".join([*head, *lines]) + "\n"


def read_store(): return json.loads(STORE.read_text("utf-8")) if STORE.is_file() else []


def ledger_page(root=ROOT):
    "The page, in Markdown with tables in HTML."
    from vsgrpo.evaluation.scores import paper_table
    from vsgrpo.evaluation.vsibench import TASKS
    from vsgrpo.training.general_ability import paper_general
    known, columns, parts = read_store(), ["overall", *TASKS], [HEAD]
    for table, title in ((1, "Table 1: prompting"), (2, "Table 2: training")):
        printed = []
        for row in paper_table(table).itertuples():
            if row.method == "reference": continue
            name = f"{row.method} {row.eval_mode}" if table == 2 else row.method
            printed.append((name, {c: getattr(row, c) for c in columns}, row.model.split("-")[-1]))
        parts.append(table_html(title, table, printed, columns, SHORT, lambda row, model: f"{model} {row}", known))
    general, names = paper_general(), ["VideoMMMU", "VideoMME"]
    printed = [(method, {n: general.loc[method, f"{n} {size}"] for n in names}, size)
               for size in ("2B", "7B") for method in general.index]
    parts.append(table_html("Table 3: general ability", 3, printed, names, names, lambda row, model: f"{model} {row}",
                            known))
    return "\n".join([*parts, figures_table(root)])


def main():
    def key(row): return row["table"], row["model"], row["row"]
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT/"runs"
    rows = {key(row): row for row in read_store()} | {key(row): row for row in collect(runs)}
    STORE.write_text(json.dumps([rows[k] for k in sorted(rows)], indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{STORE}: {len(rows)} rows")


if __name__ == "__main__":
    main()
