"Golden values of the VSI-Bench scorer: questions, prompts, and how one answer is read and scored."
import time

import pytest

from vsgrpo.evaluation.scores import best_constant
from vsgrpo.evaluation.vsibench import (LETTER_POST, MCA_TYPES, NA_TYPES, PARSERS, PRE, QUESTION_TYPES, TASKS,
                                        Question, mra, official_parse, parse_answer, parse_number, prompt,
                                        score_answer, tagged_answer)

# Recorded from lmms-eval's own functions (vsibench_process_results of the 0.6.1 and 0.7.3 wheels), on 2026-11-22:
# answer, score of object_counting with gold 4 under 0.6.1 (the official reading), the same under 0.7.3.
NUMBERS = [
    ("4", 1, 1), ("4.", 1, 1), ("4..", 1, 1), ("4.0", 1, 1), ("4 chairs", 1, 1), ("4e0", 1, 1), ("+4", 1, 1),
    ("-4", 0, 0), ("four", 0, 1), ("4,", 0, 1), ("4m", 0, 1), ("~4", 0, 1), ("There are 4", 0, 1), ("1,000", 0, 0),
    ("nan", 0, 0), ("inf", 0, 0), ("", 0, 0), (" 4", 0, 1), ("4\n", 1, 1), ("4\n chairs", 1, 1), ("3", .6, .6),
    ("5", .6, .6), ("3.7", .9, .9), ("2", .1, .1), ("6", .1, .1), ("5.9", .1, .1), ("0", 0, 0), ("1_0", 0, 0),
    ("４", 1, 1), ("four or 4", 0, 1), ("twenty-one", 0, 0), ("<answer>4</answer>", 0, 1), ("four hundred", 0, 0),
    ("3 or 4", .6, .6), ("0004", 1, 1), (".4e1", 1, 1), ("4 .", 1, 1), ("4. chairs", 1, 1),
]
# answer, score of route_planning with gold A under both
LETTER_ANSWERS = [
    ("A", 1), ("a", 1), ("A.", 1), ("A..", 1), ("A. left", 1), ("A\n", 1), ("a. ", 1), ("A.left", 0), ("A:", 0),
    ("A)", 0), ("(A)", 0), ("A, left", 0), (" A", 0), ("Answer: A", 0), ("**A**", 0), ("<answer>A</answer>", 0),
    ("", 0), ("B", 0), ("left", 0), ("A\tleft", 0), ("A.\n", 0), ("AB", 0),
]
# answer, gold, MRA (0.6.1, room_size_estimation)
PAIRS = [
    (120, 100, .6), (1.2, 1, .7), (1.5, 1, .1), (2, 4, .1), (3, 4, .6), (110, 100, .9), (105, 100, 1), (9, 10, .9),
    (11, 10, .9), (7.5, 5, .1), (65, 100, .4), (135, 100, .4), (.3, .4, .5), (1.65, 1.5, .9), (45, 30, .1),
    (2.1, 3., .5),
]

def make_question(t="object_counting", gold=None, options=None, id=0, scene="s"):
    if gold is None: gold = "4" if t in NA_TYPES else "A"
    if options is None and t in MCA_TYPES and gold in "ABCD": options = ["A. left", "B. right"]
    return Question(id, "toy", scene, t, "Which?", gold, options)

# ---- answers

@pytest.mark.parametrize("text,official,lenient", NUMBERS)
def test_number_answers(text, official, lenient):
    assert score_answer(make_question(), text) == official
    assert score_answer(make_question(), text, "lmms-eval") == lenient

@pytest.mark.parametrize("text,right", LETTER_ANSWERS)
def test_letter_answers(text, right):
    q = make_question("route_planning")
    assert score_answer(q, text) == right == score_answer(q, text, "lmms-eval")

@pytest.mark.parametrize("pred,gold,share", PAIRS)
def test_mra_values(pred, gold, share):
    assert mra(pred, gold) == share == score_answer(make_question("room_size_estimation", str(gold)), str(pred))

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
        if "<" not in text: assert score_answer(make_question(), text, "tagged") == official
    for text, right in LETTER_ANSWERS:
        if "<" not in text and text != "left":
            assert score_answer(make_question("route_planning"), text, "tagged") == right

@pytest.mark.parametrize("text,share", [("<think>2</think><answer>4 m</answer>", 1), ("four", 1), ("3, no: 4", 1),
                                        ("<think>4</think> 3", .6), ("none", 0), ("", 0), ("<think>4</think>", 1)])
def test_vlmevalkit_numbers(text, share): assert score_answer(make_question(), text, "vlmevalkit") == share

@pytest.mark.parametrize("text,right", [("<answer>(A)</answer>", 1), ("<answer>A) left</answer>", 1), ("It is A.", 1),
                                        ("B?\nSo **A**", 1), ("a", 1), ("A or B", 0), ("", 0),
                                        ("<think>B</think>\nA", 1)])
def test_vlmevalkit_letters(text, right):
    assert score_answer(make_question("route_planning"), text, "vlmevalkit") == right

@pytest.mark.parametrize("text,right", [("left", 1), ("LEFT", 1), (" left. ", 1), ("left or right", 0),
                                        ("to the left", 0), ("A", 0), ("", 0), ("lef", 0)])
def test_word_answers(text, right):
    q = make_question("object_rel_direction_easy", "left")
    assert score_answer(q, text) == right == score_answer(q, f"<answer>{text}</answer>", "tagged")

def test_two_word_answers():
    assert score_answer(make_question("object_rel_distance", "trash bin"), "Trash bin.") == 1

def test_unknown_parser():
    with pytest.raises(ValueError, match="parser is 'kind'"): score_answer(make_question(), "4", "kind")

def test_numbers_that_overflow_are_not_read():
    for text in ("hundred "*160, "9"*400, "-" + "9"*5000):
        for parser in PARSERS: assert parse_answer(make_question(), text, parser) is None, (text[:9], parser)
        assert all(score_answer(make_question(), text, parser) == 0 for parser in PARSERS)
    for text, value in (("three hundred and twenty-one", 321), ("two thousand five hundred", 2500)):
        assert parse_answer(make_question(), text, "lmms-eval") == value

LONG = ["1", "1,", "1.", "1e", ",", ".", "-", " ", "\n", "(", "<", "< ", "hundred ", "zero ", "A ", "<answer>",
        "<answer>A ", "<answer>1 ", "</answer>", "</think>", "<think></think><answer>"]

def slower_than_linear(read, texts=LONG, n=10**5):
    "Return the texts that take more than 24 times as long when they are eight times as long."
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
    for q in (make_question(), make_question("route_planning"), make_question("route_planning", "left")):
        assert slower_than_linear(lambda text, q=q: score_answer(q, text, parser)) == []

# ---- questions and prompts

def test_names():
    assert len(QUESTION_TYPES) == 10 and len(TASKS) == 8 and set(NA_TYPES) | set(MCA_TYPES) == set(QUESTION_TYPES)
    assert [make_question(t).task for t in MCA_TYPES].count("object_rel_direction") == 3
    assert {make_question(t).task for t in QUESTION_TYPES} == set(TASKS)

@pytest.mark.parametrize("change,words", [
    (dict(question_type="size"), "question_type is 'size'"), (dict(scene_name=""), "scene_name"),
    (dict(ground_truth="0.0"), "expected a number > 0"), (dict(ground_truth="-2"), "expected a number > 0"),
    (dict(ground_truth="many"), "expected a number > 0"), (dict(ground_truth=4), "ground_truth is 4"),
    (dict(question=None), "question is None"), (dict(id=None), "id is NoneType"),
    (dict(question_type="route_planning", ground_truth="C", options=["A. x", "B. y"]),
     "expected one of the option letters A, B"),
    *((dict(ground_truth=g), f"ground_truth of object_counting is {g!r}, expected a number > 0")
      for g in ("3 m", "1,000", "1_0", "４", " 4", "4 ", "+4", "nan", "inf", "1e999", "-0")),
    (dict(ground_truth="9"*5000), "expected a number > 0"),
    (dict(id=2**63), "id is int, expected text or a 64-bit integer"), (dict(id=True), "id is bool"),
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
        assert Question(1, "d", "s", "object_counting", text, "4").question == text

def test_true_numbers_are_read_once():
    "Every true number that passes the check is the number that the score divides by."
    for gold, value in (("4", 4), ("4.0", 4), ("0.5", .5), (".5", .5), ("4.", 4), ("1e2", 100), ("004", 4)):
        q = make_question(gold=gold)
        assert score_answer(q, str(value)) == 1 and float(best_constant([q])["object_counting"]) == value

def test_prompts():
    number, choice = make_question(), make_question("object_rel_direction_easy")
    word = make_question("object_rel_direction_easy", "left")
    short = "Please answer the question using a single word or phrase."
    options = "Options:\nA. left\nB. right"
    assert prompt(number) == f"{PRE}\nWhich?\n{short}" == prompt(number, wording="test")
    assert prompt(choice) == f"{PRE}\nWhich?\n{options}\n{LETTER_POST}" == prompt(choice, wording="train")
    think = "Let's think step by step and then answer the question using a single word or phrase."
    assert prompt(choice, "think", "test") == f"{PRE}\nWhich?\n{options}\n{think}"
    brief = "Please provide the short answer with one or two words or a number."
    assert prompt(word, "vanilla", "train") == f"{PRE}\nWhich?\n{brief}"
    assert "<observe> </observe> tag," in prompt(word, "observe", "train")
    assert "<think> </think> tags" in prompt(number, "think", "train")
    assert prompt(number, "observe", "test").endswith("Please observe the video first and then answer the question "
                                                      "using a single word or phrase.")
    for mode, wording, word in (("think", "benchmark", "mode"), ("loud", "test", "mode"), ("think", "ours", "wording")):
        with pytest.raises(ValueError, match=word): prompt(number, mode, wording)
