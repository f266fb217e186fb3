"""Golden values of the VSI-Bench scorer, checks on the released rows where they lie beside the checkout, and the command line."""
import json, subprocess, sys, time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsgrpo.evaluation import rows as rows_module
from vsgrpo.evaluation.rows import _text, read_questions, read_rows, write_questions
from vsgrpo.evaluation.vsibench import (LETTER_POST, MCA_TYPES, NA_TYPES, PARSERS, PRE, QUESTION_TYPES, TASKS,
                                        Question, mra, official_parse, parse_answer, parse_number, prompt,
                                        score_answer, tagged_answer)
from vsgrpo.evaluation.scores import best_constant, score_cli, paper_table, score_table

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT.parent/"shared"/"data"/"vsibench_test.parquet"

# Recorded from lmms-eval's own functions (vsibench_process_results of the 0.6.1 and 0.7.3 wheels), on 2026-11-22:
# answer, score of object_counting with gold 4 under 0.6.1 (the official reading), the same under 0.7.3.
NUMBERS = [
    ("4", 1, 1), ("4.", 1, 1), ("4..", 1, 1), ("4.0", 1, 1), ("4 chairs", 1, 1), ("4e0", 1, 1), ("+4", 1, 1),
    ("-4", 0, 0), ("four", 0, 1),
    ("4,", 0, 1), ("4m", 0, 1), ("~4", 0, 1), ("There are 4", 0, 1), ("1,000", 0, 0), ("nan", 0, 0), ("inf", 0, 0),
    ("", 0, 0), (" 4", 0, 1),
    ("4\n", 1, 1), ("4\n chairs", 1, 1), ("3", .6, .6), ("5", .6, .6), ("3.7", .9, .9), ("2", .1, .1), ("6", .1, .1),
    ("5.9", .1, .1),
    ("0", 0, 0), ("1_0", 0, 0), ("４", 1, 1), ("four or 4", 0, 1), ("twenty-one", 0, 0), ("<answer>4</answer>", 0, 1),
    ("four hundred", 0, 0),
    ("3 or 4", .6, .6), ("0004", 1, 1), (".4e1", 1, 1), ("4 .", 1, 1), ("4. chairs", 1, 1),
]
# answer, score of route_planning with gold A under both
LETTER_ANSWERS = [
    ("A", 1), ("a", 1), ("A.", 1), ("A..", 1), ("A. left", 1), ("A\n", 1), ("a. ", 1), ("A.left", 0), ("A:", 0),
    ("A)", 0), ("(A)", 0), ("A, left", 0),
    (" A", 0), ("Answer: A", 0), ("**A**", 0), ("<answer>A</answer>", 0), ("", 0), ("B", 0), ("left", 0),
    ("A\tleft", 0), ("A.\n", 0), ("AB", 0),
]
# answer, gold, MRA (0.6.1, room_size_estimation)
PAIRS = [
    (120, 100, .6), (1.2, 1, .7), (1.5, 1, .1), (2, 4, .1), (3, 4, .6), (110, 100, .9), (105, 100, 1), (9, 10, .9),
    (11, 10, .9), (7.5, 5, .1),
    (65, 100, .4), (135, 100, .4), (.3, .4, .5), (1.65, 1.5, .9), (45, 30, .1), (2.1, 3., .5),
]

def generate_answers(t="object_counting", gold=None, options=None, id=0, scene="s"):
    if gold is None: gold = "4" if t in NA_TYPES else "A"
    if options is None and t in MCA_TYPES and gold in "ABCD": options = ["A. left", "B. right"]
    return Question(id, "toy", scene, t, "Which?", gold, options)

# ---- answers

@pytest.mark.parametrize("text,official,lenient", NUMBERS)
def test_number_answers(text, official, lenient):
    assert score_answer(generate_answers(), text) == official
    assert score_answer(generate_answers(), text, "lmms-eval") == lenient

@pytest.mark.parametrize("text,right", LETTER_ANSWERS)
def test_letter_answers(text, right):
    assert score_answer(generate_answers("route_planning"),
                        text) == right == score_answer(generate_answers("route_planning"), text, "lmms-eval")

@pytest.mark.parametrize("pred,gold,share", PAIRS)
def test_mra_values(pred, gold, share):
    assert mra(pred, gold) == share == score_answer(generate_answers("room_size_estimation", str(gold)), str(pred))

def test_mra_bounds():
    assert mra(None, 3) == mra(float("inf"), 3) == mra(0, 3) == 0 and mra(3, 3) == 1
    for gold in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="gold"): mra(1, gold)

def test_mra_of_counts_is_monotone():
    for gold in range(1, 30):
        shares = [mra(p, gold) for p in range(gold, 3*gold)]
        assert shares == sorted(shares, reverse=True)

@pytest.mark.parametrize("text,parsed",
                         [("A. left", "A"), (" A", ""), ("A\n", "A"), ("4.", "4"), ("", ""), ("a b", "a"), ("...", "")])
def test_official_parse(text, parsed): assert official_parse(text) == parsed == official_parse(parsed)

@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "Infinity", "", "four", "4,", "1,000", "~4", " 4", "0x4"])
def test_unparsed_numbers(text): assert parse_number(text) is None

OPTIONS = ["A. left", "B. right", "C. front-left"]
@pytest.mark.parametrize("text,options,answer", [
    ("<answer>A</answer>", None, "A"), ("<answer> A. left </answer>", None, "A. left"),
    ("x <answer>B</answer> y <answer>A</answer>", None, "A"),
    ("<answer><answer>A</answer></answer>", None, "A"), ("<answer>\nA\n</answer>", None, "A"),
    ("<answer></answer>", None, ""), ("<answer>A", None, "<answer>A"),
    ("A</answer>", None, "A</answer>"), (" A", None, " A"), ("<answer>Front-Left.</answer>", OPTIONS, "C"),
    ("left", OPTIONS, "A"), ("leftish", OPTIONS, "leftish"),
    ("<answer>left</answer>", ["A. left", "B. Left"], "left"), ("", OPTIONS, "")])
def test_tagged_answer(text, options, answer): assert tagged_answer(text, options) == answer

def test_tagged_is_official_where_no_tag_is():
    for text, official, _ in NUMBERS:
        if "<" not in text: assert score_answer(generate_answers(), text, "tagged") == official
    for text, right in LETTER_ANSWERS:
        if "<" not in text and text != "left":
            assert score_answer(generate_answers("route_planning"), text, "tagged") == right

@pytest.mark.parametrize("text,share", [("<think>2</think><answer>4 m</answer>", 1), ("four", 1), ("3, no: 4", 1),
                                        ("<think>4</think> 3", .6), ("none", 0), ("", 0), ("<think>4</think>", 1)])
def test_vlmevalkit_numbers(text, share): assert score_answer(generate_answers(), text, "vlmevalkit") == share

@pytest.mark.parametrize("text,right", [("<answer>(A)</answer>", 1), ("<answer>A) left</answer>", 1), ("It is A.", 1),
                                        ("B?\nSo **A**", 1), ("a", 1), ("A or B", 0), ("", 0),
                                        ("<think>B</think>\nA", 1)])
def test_vlmevalkit_letters(text, right):
    assert score_answer(generate_answers("route_planning"), text, "vlmevalkit") == right

@pytest.mark.parametrize("text,right", [("left", 1), ("LEFT", 1), (" left. ", 1), ("left or right", 0),
                                        ("to the left", 0), ("A", 0), ("", 0), ("lef", 0)])
def test_word_answers(text, right):
    q = generate_answers("object_rel_direction_easy", "left")
    assert score_answer(q, text) == right == score_answer(q, f"<answer>{text}</answer>", "tagged")

def test_two_word_answers():
    assert score_answer(generate_answers("object_rel_distance", "trash bin"), "Trash bin.") == 1

def test_unknown_parser():
    with pytest.raises(ValueError, match="parser is 'kind'"): score_answer(generate_answers(), "4", "kind")

def test_what_overflows_is_no_number():
    for text in ("hundred "*160, "9"*400, "-" + "9"*5000):
        for parser in PARSERS: assert parse_answer(generate_answers(), text, parser) is None, (text[:9], parser)
        assert all(score_answer(generate_answers(), text, parser) == 0 for parser in PARSERS)
    assert parse_answer(generate_answers(), "three hundred and twenty-one", "lmms-eval") == 321 and parse_answer(generate_answers(), "two thousand five hundred", "lmms-eval") == 2500

LONG = ["1", "1,", "1.", "1e", ",", ".", "-", " ", "\n", "(", "<", "< ", "hundred ", "zero ", "A ", "<answer>",
        "<answer>A ", "<answer>1 ", "</answer>", "</think>", "<think></think><answer>"]

def slower_than_linear(read, texts=LONG, n=10**5):
    "Texts of which eight times as many characters take more than 24 times as long."
    def seconds(text):
        begin = time.process_time()
        read(text)
        return time.process_time() - begin
    def slow(text):
        short = seconds(text[:n//8])
        return short > 1 or (long := seconds(text)) > .3 and long > 24*short
    whole = [(t*n)[:n] for t in texts] + ["<answer>" + " "*n, "<answer>" + "1"*n, "1"*n + "x", "1"*n + ",",
                                          "1." + "1"*n, "<" + " "*n]
    return [t[:12] for t in whole if slow(t)]

@pytest.mark.parametrize("parser", PARSERS)
def test_long_answers_are_read_in_linear_time(parser):
    for q in (generate_answers(), generate_answers("route_planning"), generate_answers("route_planning", "left")):
        assert slower_than_linear(lambda text, q=q: score_answer(q, text, parser)) == []

# ---- questions and prompts

def test_names():
    assert len(QUESTION_TYPES) == 10 and len(TASKS) == 8 and set(NA_TYPES) | set(MCA_TYPES) == set(QUESTION_TYPES)
    assert [generate_answers(t).task for t in MCA_TYPES].count("object_rel_direction") == 3 and {generate_answers(t).task for t in QUESTION_TYPES} == set(TASKS)

@pytest.mark.parametrize("change,words", [
    (dict(question_type="size"), "question_type is 'size'"), (dict(ground_truth="0.0"), "expected a number > 0"),
    (dict(ground_truth="-2"), "expected a number > 0"),
    (dict(ground_truth="many"), "expected a number > 0"), (dict(scene_name=""), "scene_name"),
    (dict(question=None), "question is None"), (dict(ground_truth=4), "ground_truth is 4"),
    (dict(id=None), "id is NoneType"),
    (dict(question_type="route_planning", ground_truth="C", options=["A. x", "B. y"]),
     "expected one of the option letters A, B"),
    *((dict(ground_truth=g), f"ground_truth of object_counting is {g!r}, expected a number > 0")
      for g in ("3 m", "1,000", "1_0", "４", " 4", "4 ", "+4", "nan", "inf", "1e999", "-0")),
    (dict(ground_truth="9"*5000), "expected a number > 0"),
    (dict(id=2**63), "id is int, expected text or an integer of 64 bits"), (dict(id=True), "id is bool"),
    *((dict(question=f"Is {t} here?"), f"question holds '{t}', which is a control token")
      for t in ("<|video_pad|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<tool_call>")),
    (dict(question="half \ud83d a face"), "question is 'half \\ud83d a face', which holds half a character"),
    (dict(scene_name="s\udc00"), "scene_name is 's\\udc00'"), (dict(id="\ud800"), "holds half a character"),
    (dict(question_type="route_planning", ground_truth="<|im_end|>"), "ground_truth holds '<|im_end|>'"),
    (dict(question_type="route_planning", ground_truth="A", options=["A. x", "B. <|im_start|>user"]),
     "an option holds '<|im_start|>'"),
    (dict(question_type="route_planning", ground_truth="A", options=["A. x", "B. "]), "expected 'A. …'"),
    (dict(question_type="route_planning", ground_truth="A", options=["A. x", 2]), "expected 'A. …'"),
    (dict(question_type="route_planning", ground_truth="A", options=["left", "right"]), "expected 'A. …'"),
    (dict(question_type="route_planning", ground_truth="A", options=[]), "options")])
def test_refused_questions(change, words):
    row = dict(id=1, dataset="d", scene_name="s", question_type="object_counting", question="?",
               ground_truth="4") | change
    with pytest.raises(ValueError, match="question ") as e: Question(**row)
    assert words in str(e.value)

def test_tags_and_brackets_are_text():
    for text in ("<think>a</think> <observe> <answer>", "if a < b | c > d", "a <| b", "<||>", "|>", "🙂"):
        assert generate_answers(gold="4").question and Question(1, "d", "s", "object_counting", text,
                                                                "4").question == text

def test_true_numbers_are_read_once():
    "What passes the check is what the score divides by, in every form that passes."
    for gold, value in (("4", 4), ("4.0", 4), ("0.5", .5), (".5", .5), ("4.", 4), ("1e2", 100), ("004", 4)):
        assert score_answer(generate_answers(gold=gold),
                            str(value)) == 1 and float(best_constant([generate_answers(gold=gold)])["object_counting"]) == value

def test_prompts():
    number, choice, word = generate_answers(), generate_answers("object_rel_direction_easy"), generate_answers("object_rel_direction_easy", "left")
    short = "Please answer the question using a single word or phrase."
    assert prompt(number) == f"{PRE}\nWhich?\n{short}" == prompt(number, wording="test")
    assert prompt(choice) == f"{PRE}\nWhich?\nOptions:\nA. left\nB. right\n{LETTER_POST}" == prompt(choice, wording="train")
    assert prompt(choice, "think", "test") == f"{PRE}\nWhich?\nOptions:\nA. left\nB. right\nLet's think step by step and then answer the question using a single word or phrase."
    assert prompt(word, "vanilla", "train") == f"{PRE}\nWhich?\nPlease provide the short answer with one or two words or a number."
    assert "<observe> </observe> tag," in prompt(word, "observe", "train") and "<think> </think> tags" in prompt(number, "think", "train")
    assert prompt(number, "observe", "test").endswith("Please observe the video first and then answer the question "
                                                      "using a single word or phrase.")
    for mode, wording, word in (("think", "benchmark", "mode"), ("loud", "test", "mode"), ("think", "ours", "wording")):
        with pytest.raises(ValueError, match=word): prompt(number, mode, wording)

# ---- files

MIXED = [Question(7, "scannet", "scene0011_00", "object_abs_distance", "How far?\nIn m.", "2.5", None,
                  {"objects": [1, 2], "closest_m": 2.53}),
         Question(8, "scannet", "scene0011_00", "route_planning", "“Turn”?", "B", ["A. left", "B. right"])]

@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl"])
@pytest.mark.parametrize("questions", [MIXED, MIXED[:1], [], [generate_answers(id="a"), generate_answers(id="b")]])
def test_files_round_trip(tmp_path, name, questions):
    path = write_questions(questions, tmp_path/name)
    assert read_questions(path) == questions and [p.name for p in tmp_path.iterdir()] == [name]

def test_rows_that_are_none_are_named_and_counted(tmp_path):
    rows = [GOOD, GOOD | {"id": 2, "question": "<|video_pad|>"}, GOOD | {"id": 3, "ground_truth": "3 m"},
            GOOD | {"id": 4, "question_type": "route_planning", "ground_truth": float("nan")}]
    pd.DataFrame([r | {"ground_truth": str(r["ground_truth"])} for r in rows[:3]]).to_parquet(tmp_path/"q.parquet")
    (tmp_path/"q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    good, broken = read_rows(tmp_path/"q.parquet")
    assert [q.id for q in good] == [1] and [i
                                            for i, _ in broken] == [2, 3] and "row 1: question 2: question holds '<|video_pad|>'" in broken[0][1]
    with pytest.raises(ValueError, match=r"row 1: question 2: question holds '<\|video_pad\|>'"):
        read_questions(tmp_path/"q.parquet")
    assert [i for i, _ in read_rows(tmp_path/"q.jsonl")[1]] == [2, 3, 4] and "ground_truth: nan, expected text" in read_rows(tmp_path/"q.jsonl")[1][2][1]

def test_numbers_of_all_kinds_are_text(tmp_path):
    for gold in (np.int64(4), np.float32(4), 4.0, 4): assert _text(gold, "x") in ("4", "4.0")
    for gold in (True, np.True_, float("nan"), np.inf, None, [4]):
        with pytest.raises(ValueError, match="x: .*, expected text"): _text(gold, "x")

def packed(path, **columns):
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path

def test_packed_files_are_bounded(tmp_path, monkeypatch):
    "Few bytes on disk: too many rows, too many items of lists, one long text many times over; the last is known only while it is read."
    for name, most in (("MOST_ROWS", 5000), ("MOST_CELLS", 20_000), ("MOST_BYTES", 10**7), ("_AT_ONCE", 10**6)):
        monkeypatch.setattr(rows_module, name, most)
    rows = packed(tmp_path/"rows.parquet", id=pa.array(np.zeros(6000, np.int64)))
    items = packed(tmp_path/"items.parquet",
                   options=pa.ListArray.from_arrays([0, 30_000], pa.array(np.zeros(30_000, np.int8))))
    text = packed(tmp_path/"text.parquet",
                  question=pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, np.int32)), pa.array(["x"*100_000])))
    for path, words in ((rows, "rows.parquet: 6,000 rows unpacked, expected at most 5,000"),
                        (items, "items.parquet: 30,000 cells"),
                        (text, "text.parquet: 10,[0-9,]* bytes unpacked, expected at most 10,000,000")):
        assert path.stat().st_size < 20_000
        with pytest.raises(ValueError, match=words): read_rows(path)
    with pytest.raises(ValueError, match="rows.parquet: 6,000 rows"): read_questions(rows)

def test_unknown_columns_are_left_aside(tmp_path):
    row = {"id": 1, "dataset": "d", "scene_name": "s", "question_type": "object_counting", "question": "?",
           "ground_truth": 4, "pruned": True, "options": None}
    (tmp_path/"q.jsonl").write_text(json.dumps(row) + "\n\n")
    pd.DataFrame([row | {"ground_truth": "4"}]).to_parquet(tmp_path/"q.parquet")
    assert read_questions(tmp_path/"q.jsonl") == read_questions(tmp_path/"q.parquet") == [Question(1, "d", "s", "object_counting", "?", "4")]

GOOD = {"id": 1, "dataset": "d", "scene_name": "s", "question_type": "object_counting", "question": "?",
        "ground_truth": "4"}
@pytest.mark.parametrize("lines,words", [
    (["{"], "line 1: not JSON"), ([json.dumps(GOOD), "[1]"], "line 2: list, expected an object"),
    ([json.dumps(GOOD)]*2, "1 doubled id, first 1"),
    ([json.dumps(GOOD), json.dumps(GOOD | {"id": "1"})], "doubled id"),
    ([json.dumps({k: v for k, v in GOOD.items() if k != "question"})], "line 1: missing column question"),
    ([json.dumps(GOOD | {"ground_truth": "x"})], "line 1: question 1: ground_truth"),
    ([json.dumps(GOOD | {"options": "A. x"})], "expected a list"),
    ([json.dumps(GOOD | {"provenance": "{"})], "provenance is not JSON"),
    ([json.dumps(GOOD | {"ground_truth": None})], "ground_truth: None, expected text"), (["\xff"], "not JSON")])
def test_broken_lines(tmp_path, lines, words):
    path = tmp_path/"q.jsonl"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(ValueError, match="q.jsonl") as e: read_questions(path)
    assert words in str(e.value)

def test_broken_files(tmp_path):
    (tmp_path/"q.parquet").write_text("no")
    (tmp_path/"q.csv").write_text("no")
    pd.DataFrame([GOOD]).drop(columns="dataset").to_parquet(tmp_path/"r.parquet")
    with pytest.raises(ValueError, match="not a parquet file"): read_questions(tmp_path/"q.parquet")
    with pytest.raises(ValueError, match="ending is '.csv'"): read_questions(tmp_path/"q.csv")
    with pytest.raises(ValueError, match="r.parquet, row 0: missing column dataset"):
        read_questions(tmp_path/"r.parquet")
    with pytest.raises(FileNotFoundError, match="none.parquet"): read_questions(tmp_path/"none.parquet")
    with pytest.raises(ValueError, match="one kind"):
        write_questions([generate_answers(id=1), generate_answers(id="b")], tmp_path/"w.parquet")
    with pytest.raises(ValueError, match="doubled id"):
        write_questions([generate_answers(id=1), generate_answers(id=1)], tmp_path/"w.parquet")
    assert not list(tmp_path.glob("w*"))

# ---- tables

def all_types(n_scenes=12, skip=()):
    return [generate_answers(t, id=f"{s}-{t}", scene=f"s{s}")for s in range(n_scenes)for t in QUESTION_TYPES
            if t not in skip]

def test_table_aggregates_as_the_benchmark():
    questions = all_types()
    wrong_easy = {q.id: "B" if q.question_type.endswith("easy") else q.ground_truth for q in questions}
    table = score_table(questions, wrong_easy).set_index("question_type")
    assert list(table.index) == [*TASKS, "overall"] and list(table.columns) == ["n", "score", "ci_low", "ci_high"]
    assert table.score["object_rel_direction"] == pytest.approx(200/3) and table.score["overall"] == pytest.approx((700 + 200/3)/8)
    assert table.n["object_rel_direction"] == 36 and table.n["overall"] == 120

def test_direction_is_a_mean_of_types_not_of_rows():
    many = [generate_answers("object_rel_direction_easy", id=i)
            for i in range(9)] + [generate_answers("object_rel_direction_hard", id=9)]
    assert score_table(many, ["A"]*9 + ["B"], n_boot=0).score[0] == 50

@pytest.mark.parametrize("missing", QUESTION_TYPES)
def test_no_overall_while_a_type_is_missing(missing):
    questions = all_types(3, skip=(missing,))
    assert "overall" not in set(score_table(questions, [q.ground_truth for q in questions], n_boot=5).question_type)

def test_answers_must_fit():
    questions = [generate_answers(id=1), generate_answers(id=2)]
    for answers, words in (({1: "4"}, "no answer for 1 of 2 questions, as id 2"),
                           ({1: "4", 2: "4", 3: "4"}, "unknown id in 1"), (["4"], "1 answers, expected 2"),
                           ({1: "4", "1": "4", 2: "4"}, "doubled id")):
        with pytest.raises(ValueError) as e: score_table(questions, answers)
        assert words in str(e.value)
    with pytest.raises(ValueError, match="no questions"): score_table([], [])
    assert score_table(questions, {"1": "4", "2": None}).score[0] == 50

def test_interval_is_over_scenes():
    rng = np.random.default_rng(1)
    good = rng.random(60) < .5 # scenes that are answered right throughout
    questions = [generate_answers(id=f"{s}-{k}", scene=f"s{s}") for s in range(60) for k in range(5)]
    answers = ["4" if good[int(q.id.split("-")[0])] else "400" for q in questions]
    row = score_table(questions, answers).iloc[0]
    half = 1.96*100*np.sqrt(good.mean()*(1 - good.mean())/60) # rows would give a width smaller by √5
    assert row.ci_low < row.score < row.ci_high and (row.ci_high - row.ci_low)/2 == pytest.approx(half, rel=.15)
    pd.testing.assert_frame_equal(score_table(questions, answers, seed=3), score_table(questions, answers, seed=3))
    assert np.isnan(score_table(questions, answers, n_boot=0).ci_low[0])

def test_best_constants():
    counts = [generate_answers(gold=g, id=i) for i, g in enumerate(["2", "2", "3", "9"])]
    assert best_constant(counts) == {"object_counting": "2"}
    assert best_constant([generate_answers("object_abs_distance", g, id=i)
                          for i, g in enumerate(["1.0", "1.0", "2.0", "2.1", "2.2"])]) == {"object_abs_distance": "2.1"}
    words = [generate_answers("object_rel_direction_easy", g, id=i) for i, g in enumerate(["right", "left", "left"])]
    assert best_constant(words) == {"object_rel_direction_easy": "left"} and best_constant([]) == {}

def test_best_constant_is_best():
    rng = np.random.default_rng(0)
    golds = [f"{g:.1f}" for g in rng.lognormal(.6, .5, 300) + .1]
    chosen = float(best_constant([generate_answers("object_abs_distance", g, id=i)
                                  for i, g in enumerate(golds)])["object_abs_distance"])
    mean = {c: np.mean([mra(c, float(g)) for g in golds]) for c in sorted({float(g) for g in golds})}
    assert mean[chosen] == pytest.approx(max(mean.values()))

def test_paper_tables():
    two = paper_table()
    assert two.shape == (18, 12) and list(two.columns[3:]) == ["overall", *TASKS]
    assert two.set_index(["model", "method"]).overall["Qwen2-VL-2B",
                                                      "vsGRPO-V"] == 35.4 and paper_table(1).overall.max() == 32.2
    with pytest.raises(ValueError, match="table is 3"): paper_table(3)

# ---- the command line

def run_cli(*args):
    "The command in a process of its own."
    return subprocess.run([sys.executable, "-c", "from vsgrpo.evaluation.scores import score_cli; score_cli()",
                           *map(str, args)], capture_output=True, text=True, cwd=ROOT)

def answer_file(path, questions, change=lambda r: r, full=False):
    rows = [{k: getattr(q, k) for k in ("id", "dataset", "scene_name", "question_type", "question", "ground_truth",
                                        "options")} if full else {"id": q.id} for q in questions]
    path.write_text("".join(json.dumps(change(r | {"prediction": q.ground_truth})) + "\n"
                            for r, q in zip(rows, questions)))
    return path

def test_cli_scores(tmp_path):
    questions = all_types(2)
    rows = write_questions(questions, tmp_path/"rows.parquet")
    with_rows = run_cli(answer_file(tmp_path/"a.jsonl", questions[::-1]), "--rows", rows, "--json")
    alone = run_cli(answer_file(tmp_path/"b.jsonl", questions, full=True), "--parser", "tagged")
    assert with_rows.returncode == alone.returncode == 0, with_rows.stderr + alone.stderr
    out = json.loads(with_rows.stdout)
    assert out["parser"] == "official" and [r["question_type"]
                                            for r in out["scores"]] == [*TASKS,
                                                                        "overall"] and out["scores"][-1]["score"] == 100
    assert alone.stdout.startswith("parser: tagged\n") and alone.stdout.count("100.0") == 27

def test_cli_refuses(tmp_path, capsys):
    questions = all_types(1)
    rows = write_questions(questions, tmp_path/"rows.jsonl")
    good = answer_file(tmp_path/"a.jsonl", questions).read_text().splitlines()
    cases = {"missing": (good[1:], "no answer for 1 of 10 questions"), "doubled": (good + good[:1], "doubled id"),
             "unknown": (good + ['{"id": "x", "prediction": "4"}'], "unknown id"),
             "column": (['{"id": "x"}'], "line 1: missing column prediction"),
             "broken": (good[:2] + ['{"id": '], "line 3: not JSON"),
             "kind": (['{"id": 1, "prediction": [4]}'], "prediction: [4], expected text"),
             "id": (['{"id": 1.5, "prediction": "4"}'], "line 1: id is 1.5, expected text or an integer")}
    for name, (lines, words) in cases.items():
        path = tmp_path/f"{name}.jsonl"
        path.write_text("\n".join(lines))
        with pytest.raises(SystemExit) as ended: score_cli([str(path), "--rows", str(rows)])
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and out == "" and len(err.splitlines()) == 1 and words in err, (name, err)
    pd.DataFrame([dict(id=q.id, prediction=None) for q in questions]).to_parquet(tmp_path/"empty.parquet")
    assert run_cli(tmp_path/"empty.parquet", "--rows", rows).returncode == 0          # none at all is an empty answer
    for args, words in (((tmp_path/"none.jsonl",), "no such file"), ((tmp_path/"a.jsonl",), "missing column dataset"),
                        ((tmp_path/"a.jsonl", "--rows", tmp_path/"none.parquet"), "no such file")):
        r = run_cli(*args)
        assert r.returncode == 2 and words in r.stderr and len(r.stderr.splitlines()) == 1

def test_scoring_loads_no_torch():
    code = "import sys, vsgrpo.vsibench, vsgrpo.rewards; print([m for m in ('torch', 'transformers', 'matplotlib', 'open3d') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"

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
    for name in ("q.parquet", "q.jsonl"): assert read_questions(write_questions(released, tmp_path/name)) == released

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
    """Made-up answers of all kinds; the overall scores were recorded from vsibench_aggregate_* of lmms-eval 0.6.1 and 0.7.3."""
    def answer(q):
        if not q.is_mca:
            return f"{float(q.ground_truth)*(.5 + q.id%11/10):.1f}" + ("", ".", " m", " or so", ",")[q.id%5]
        return "ABCD"[q.id%4] + ("", ".", ") ", " left")[q.id%3]
    answers = [answer(q) for q in released]
    scores = score_table(released, answers, n_boot=0).set_index("question_type").score
    assert scores["overall"] == pytest.approx(29.226814720131333, abs=1e-9)
    assert scores["object_rel_direction"] == pytest.approx(16.684504686464963,
                                                           abs=1e-9) and scores["object_abs_distance"] == pytest.approx(40.52757793764988, abs=1e-9)
    assert score_table(released, answers, "lmms-eval", n_boot=0).score.iloc[-1] == pytest.approx(34.4021, abs=1e-4)

# Families of answers, and what the benchmark's own functions make of them (vsibench_process_results and
# vsibench_aggregate_results of lmms-eval
# 0.6.1, called on the released rows). Each answer's own score was the same to the last digit, too.

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
    "edge cases, about right": lambda q: EDGES[q.id % len(EDGES)].format(_letter(q, q.id % 2)if q.is_mca
                                                                         else _number(q, .5 + q.id % 101/100)),
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
    said, run = FAMILIES["edge cases, about right"], Run(tmp_path/"store")
    run.write_settings({"modes": ["vanilla"]})
    write_questions(released, tmp_path/"store/questions.parquet")
    run.log_answers([dict(arm="modes", mode="vanilla", id=q.id, sample=0, prediction=said(q), n_tokens=1,
                          truncated=False, seconds=0.) for q in released])
    (tmp_path/"a.jsonl").write_text("".join(json.dumps(dict(id=q.id, prediction=said(q))) + "\n" for q in released))
    cli = json.loads(run_cli(tmp_path/"a.jsonl", "--rows", ROWS, "--json").stdout)["scores"][-1]["score"]
    scores = vsi_scores(EvalResults(tmp_path/"store"))
    assert cli == pytest.approx(OFFICIAL["edge cases, about right"],
                                abs=1e-10) == scores[(scores.name == "vanilla") & (scores.question_type == "overall")].score.item()
