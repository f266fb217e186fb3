"Score tables, intervals, the paper's tables, the command line, and the released rows if they lie beside the checkout."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_vsibench import make_question

from vsgrpo.evaluation.rows import read_questions, write_questions
from vsgrpo.evaluation.scores import best_constant, paper_table, score_cli, score_table
from vsgrpo.evaluation.vsibench import NA_TYPES, PARSERS, QUESTION_TYPES, TASKS, mra

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT.parent/"shared"/"data"/"vsibench_test.parquet"

# ---- tables

def all_types(n_scenes=12, skip=()):
    types = [t for t in QUESTION_TYPES if t not in skip]
    return [make_question(t, id=f"{scene}-{t}", scene=f"s{scene}") for scene in range(n_scenes) for t in types]

def test_table_aggregates_as_the_benchmark():
    questions = all_types()
    wrong_easy = {q.id: "B" if q.question_type.endswith("easy") else q.ground_truth for q in questions}
    table = score_table(questions, wrong_easy).set_index("question_type")
    assert list(table.index) == [*TASKS, "overall"] and list(table.columns) == ["n", "score", "ci_low", "ci_high"]
    assert table.score["object_rel_direction"] == pytest.approx(200/3)
    assert table.score["overall"] == pytest.approx((700 + 200/3)/8)
    assert table.n["object_rel_direction"] == 36 and table.n["overall"] == 120

def test_direction_is_a_mean_of_types_not_of_rows():
    questions = [make_question("object_rel_direction_easy", id=i) for i in range(9)]
    questions.append(make_question("object_rel_direction_hard", id=9))
    assert score_table(questions, ["A"]*9 + ["B"], n_boot=0).score[0] == 50

@pytest.mark.parametrize("missing", QUESTION_TYPES)
def test_no_overall_while_a_type_is_missing(missing):
    questions = all_types(3, skip=(missing,))
    assert "overall" not in set(score_table(questions, [q.ground_truth for q in questions], n_boot=5).question_type)

def test_answers_must_fit():
    questions = [make_question(id=1), make_question(id=2)]
    for answers, words in (({1: "4"}, "no answer for 1 of 2 questions, such as id 2"),
                           ({1: "4", 2: "4", 3: "4"}, "unknown id in 1"), (["4"], "1 answers, expected 2"),
                           ({1: "4", "1": "4", 2: "4"}, "duplicate ids")):
        with pytest.raises(ValueError) as e: score_table(questions, answers)
        assert words in str(e.value)
    with pytest.raises(ValueError, match="no questions"): score_table([], [])
    assert score_table(questions, {"1": "4", "2": None}).score[0] == 50

def test_interval_is_over_scenes():
    rng = np.random.default_rng(1)
    good = rng.random(60) < .5 # scenes that are answered right throughout
    questions = [make_question(id=f"{s}-{k}", scene=f"s{s}") for s in range(60) for k in range(5)]
    answers = ["4" if good[int(q.id.split("-")[0])] else "400" for q in questions]
    row = score_table(questions, answers).iloc[0]
    half = 1.96*100*np.sqrt(good.mean()*(1 - good.mean())/60) # rows would give a width smaller by √5
    assert row.ci_low < row.score < row.ci_high and (row.ci_high - row.ci_low)/2 == pytest.approx(half, rel=.15)
    pd.testing.assert_frame_equal(score_table(questions, answers, seed=3), score_table(questions, answers, seed=3))
    assert np.isnan(score_table(questions, answers, n_boot=0).ci_low[0])

def test_best_constants():
    counts = [make_question(gold=g, id=i) for i, g in enumerate(["2", "2", "3", "9"])]
    assert best_constant(counts) == {"object_counting": "2"}
    golds = ["1.0", "1.0", "2.0", "2.1", "2.2"]
    distances = [make_question("object_abs_distance", g, id=i) for i, g in enumerate(golds)]
    assert best_constant(distances) == {"object_abs_distance": "2.1"}
    words = [make_question("object_rel_direction_easy", g, id=i) for i, g in enumerate(["right", "left", "left"])]
    assert best_constant(words) == {"object_rel_direction_easy": "left"} and best_constant([]) == {}

def test_best_constant_is_best():
    rng = np.random.default_rng(0)
    golds = [f"{g:.1f}" for g in rng.lognormal(.6, .5, 300) + .1]
    questions = [make_question("object_abs_distance", g, id=i) for i, g in enumerate(golds)]
    chosen = float(best_constant(questions)["object_abs_distance"])
    mean = {c: np.mean([mra(c, float(g)) for g in golds]) for c in sorted({float(g) for g in golds})}
    assert mean[chosen] == pytest.approx(max(mean.values()))

def test_paper_tables():
    two = paper_table()
    assert two.shape == (18, 12) and list(two.columns[3:]) == ["overall", *TASKS]
    assert two.set_index(["model", "method"]).overall["Qwen2-VL-2B", "vsGRPO-V"] == 35.4
    assert paper_table(1).overall.max() == 32.2
    with pytest.raises(ValueError, match="table is 3"): paper_table(3)

# ---- the command line

def run_cli(*args):
    "Run the command in a process of its own."
    return subprocess.run([sys.executable, "-c", "from vsgrpo.evaluation.scores import score_cli; score_cli()",
                           *map(str, args)], capture_output=True, text=True, cwd=ROOT)

def answer_file(path, questions, full=False):
    "Write right answers to questions, with the questions' columns if `full`."
    columns = ("dataset", "scene_name", "question_type", "question", "ground_truth", "options") if full else ()
    def line(q):
        row = {name: getattr(q, name) for name in ("id", *columns)}
        return json.dumps(row | {"prediction": q.ground_truth}) + "\n"
    path.write_text("".join(map(line, questions)))
    return path

def test_cli_scores(tmp_path):
    questions = all_types(2)
    rows = write_questions(questions, tmp_path/"rows.parquet")
    with_rows = run_cli(answer_file(tmp_path/"a.jsonl", questions[::-1]), "--rows", rows, "--json")
    alone = run_cli(answer_file(tmp_path/"b.jsonl", questions, full=True), "--parser", "tagged")
    assert with_rows.returncode == alone.returncode == 0, with_rows.stderr + alone.stderr
    out = json.loads(with_rows.stdout)
    assert out["parser"] == "official" and out["scores"][-1]["score"] == 100
    assert [row["question_type"] for row in out["scores"]] == [*TASKS, "overall"]
    assert alone.stdout.startswith("parser: tagged\n") and alone.stdout.count("100.0") == 27

def test_cli_refuses(tmp_path, capsys):
    questions = all_types(1)
    rows = write_questions(questions, tmp_path/"rows.jsonl")
    good = answer_file(tmp_path/"a.jsonl", questions).read_text().splitlines()
    cases = {"missing": (good[1:], "no answer for 1 of 10 questions"), "doubled": (good + good[:1], "duplicate ids"),
             "unknown": (good + ['{"id": "x", "prediction": "4"}'], "unknown id"),
             "column": (['{"id": "x"}'], "line 1: missing column prediction"),
             "broken": (good[:2] + ['{"id": '], "line 3: not JSON"),
             "kind": (['{"id": 1, "prediction": [4]}'], "prediction: [4], expected text"),
             "id": (['{"id": 1.5, "prediction": "4"}'], "line 1: id is 1.5, expected text or a 64-bit integer")}
    for name, (lines, words) in cases.items():
        path = tmp_path/f"{name}.jsonl"
        path.write_text("\n".join(lines))
        with pytest.raises(SystemExit) as ended: score_cli([str(path), "--rows", str(rows)])
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and out == "" and len(err.splitlines()) == 1 and words in err, (name, err)
    pd.DataFrame([dict(id=q.id, prediction=None) for q in questions]).to_parquet(tmp_path/"empty.parquet")
    assert run_cli(tmp_path/"empty.parquet", "--rows", rows).returncode == 0          # a missing answer counts as empty
    for args, words in (((tmp_path/"none.jsonl",), "no such file"),
                        ((tmp_path/"a.jsonl",), "pass the file of the questions as rows"),
                        ((tmp_path/"a.jsonl", "--rows", tmp_path/"none.parquet"), "no such file")):
        r = run_cli(*args)
        assert r.returncode == 2 and words in r.stderr and len(r.stderr.splitlines()) == 1

def test_scoring_loads_no_torch():
    code = ("import sys, vsgrpo.evaluation.scores, vsgrpo.training.rewards; "
            "print([m for m in ('torch', 'transformers', 'matplotlib', 'open3d') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr

# ---- the released rows

@pytest.fixture(scope="module")
def released():
    if not ROWS.is_file(): pytest.skip(f"the benchmark's rows are not here: {ROWS}")
    return read_questions(ROWS)

def test_released_rows_are_read(released):
    n = pd.Series([q.question_type for q in released]).value_counts()
    assert len(released) == 5130 and len({q.video for q in released}) == 288
    assert [n[t] for t in QUESTION_TYPES] == [565, 834, 953, 288, 710, 217, 378, 373, 194, 618]
    assert all(q.is_mca == (q.options is not None) for q in released)

def test_released_rows_round_trip(released, tmp_path):
    for name in ("q.parquet", "q.jsonl"):
        assert read_questions(write_questions(released, tmp_path/name)) == released

def test_gold_answers_score_full(released):
    for parser in PARSERS:
        table = score_table(released, [q.ground_truth for q in released], parser, n_boot=0)
        assert (table.score == 100).all() and len(table) == 9, parser

def test_frequency_baseline(released):
    # published: 62.1 32.0 29.9 33.1 and 34.0 overall; the rows as released give 61.8 31.6 29.8 33.1 and 34.0
    constant = best_constant(released)
    scores = score_table(released, {q.id: constant[q.question_type] for q in released},
                         n_boot=0).set_index("question_type").score
    assert scores[list(NA_TYPES)].round(2).tolist() == [61.84, 31.56, 29.80, 33.12]
    assert np.abs(scores[list(NA_TYPES)] - [62.1, 32.0, 29.9, 33.1]).max() < .5
    assert scores["overall"] == pytest.approx(34.0, abs=.05)

def test_overall_equals_lmms_eval(released):
    "Made-up answers of all kinds; overall scores recorded from vsibench_aggregate_* of lmms-eval 0.6.1 and 0.7.3."
    def answer(q):
        if not q.is_mca:
            return f"{float(q.ground_truth)*(.5 + q.id%11/10):.1f}" + ("", ".", " m", " or so", ",")[q.id%5]
        return "ABCD"[q.id%4] + ("", ".", ") ", " left")[q.id%3]
    answers = [answer(q) for q in released]
    scores = score_table(released, answers, n_boot=0).set_index("question_type").score
    assert scores["overall"] == pytest.approx(29.226814720131333, abs=1e-9)
    assert scores["object_rel_direction"] == pytest.approx(16.684504686464963, abs=1e-9)
    assert scores["object_abs_distance"] == pytest.approx(40.52757793764988, abs=1e-9)
    assert score_table(released, answers, "lmms-eval", n_boot=0).score.iloc[-1] == pytest.approx(34.4021, abs=1e-4)

# Families of answers, and what the benchmark's own functions make of them (vsibench_process_results and
# vsibench_aggregate_results of lmms-eval 0.6.1, called on the released rows). Each answer's own score was the same
# to the last digit, too.

EDGES = ["{}", "{}.", "{}..", "{}. left", "{}\n", "{}.left", "{}:", "{})", "({})", "{}, left", " {}", "Answer: {}",
         "**{}**", "<answer>{}</answer>", "{}.0", "{} chairs", "{}e0", "+{}", "{},",
         "{}m", "~{}", "There are {}", "nan", "inf", "-inf", "", "four", "1,000", "-{}", "0", "１２", "1_0", "{}\tm",
         "\n{}", "{}\u00a0m", "<think>{}</think>", "{} or 2"]

def _number(q, factor): return f"{float(q.ground_truth)*factor:.2f}"
def _letter(q, shift):
    return "ABCD"["ABCD".index(q.ground_truth) - shift % 4] if q.ground_truth in "ABCD" else q.ground_truth
FAMILIES = { # name → answer to a question, made of nothing but the row
    "gold": lambda q: q.ground_truth,
    "one answer to all": lambda q: "A" if q.is_mca else "1",
    "about right": lambda q: _letter(q, q.id % 5 == 0) if q.is_mca else _number(q, .6 + q.id % 83/100),
    "far off": lambda q: _letter(q, 1 + q.id % 3) if q.is_mca else _number(q, 2 + q.id % 7),
    "a tenth below": lambda q: q.ground_truth.lower() if q.is_mca else _number(q, .9),
    "a tenth above": lambda q: q.ground_truth.lower() + "." if q.is_mca else _number(q, 1.1),
    "with its unit": lambda q: f"{q.ground_truth} meters",
    "unit glued on": lambda q: f"{q.ground_truth}m",
    "a sentence": lambda q: f"The answer is {q.ground_truth}.",
    "tags": lambda q: f"<think>I look around.</think> <answer>{q.ground_truth}</answer>",
    "dots and lines": lambda q: q.ground_truth + (".", "...", "\n", ".\n", " .", "\n\nBecause I saw it.")[q.id % 6],
    "rounded": lambda q: q.ground_truth if q.is_mca else f"{float(q.ground_truth):.0f}",
    "nothing": lambda q: "",
    "edge cases": lambda q: EDGES[q.id % len(EDGES)].format(q.ground_truth),
    "edge cases, about right": lambda q: EDGES[q.id % len(EDGES)].format(
        _letter(q, q.id % 2) if q.is_mca else _number(q, .5 + q.id % 101/100)),
}
OFFICIAL = {"gold": 100., "one answer to all": 18.148362829720448, "about right": 72.1311994543444, "far off": 0.,
            "a tenth below": 94.92755795363709, "a tenth above": 94.87032111587752,
            "with its unit": 100., "unit glued on": 0., "a sentence": 0., "tags": 0.,
            "dots and lines": 70.80996460724275, "rounded": 96.45364958033574, "nothing": 0.,
            "edge cases": 25.2619203582487, "edge cases, about right": 13.079475745162844}

@pytest.mark.parametrize("name", FAMILIES)
def test_families_score_as_the_official_functions_say(released, name):
    table = score_table(released, [FAMILIES[name](q) for q in released], n_boot=0).set_index("question_type").score
    assert table["overall"] == pytest.approx(OFFICIAL[name], abs=1e-10)

def test_the_command_and_the_store_agree_with_them(released, tmp_path):
    "One family through `vsgrpo-score` and through a store of chapter 00: the same figure."
    from vsgrpo.evaluation.answer_store import EvalResults, vsi_scores
    from vsgrpo.evaluation.records import Run
    name = "edge cases, about right"
    answer, run = FAMILIES[name], Run(tmp_path/"store")
    run.write_settings({"modes": ["vanilla"]})
    write_questions(released, tmp_path/"store/questions.parquet")
    run.log_answers([dict(arm="modes", mode="vanilla", id=q.id, sample=0, prediction=answer(q), n_tokens=1,
                          truncated=False, seconds=0.) for q in released])
    lines = [json.dumps(dict(id=q.id, prediction=answer(q))) + "\n" for q in released]
    (tmp_path/"a.jsonl").write_text("".join(lines))
    cli = json.loads(run_cli(tmp_path/"a.jsonl", "--rows", ROWS, "--json").stdout)["scores"][-1]["score"]
    scores = vsi_scores(EvalResults(tmp_path/"store"))
    store = scores[(scores.name == "vanilla") & (scores.question_type == "overall")].score.item()
    assert cli == pytest.approx(OFFICIAL[name], abs=1e-10) == store
