"""What a reward pays and what it must not: a table of completions with the reason for each."""
import math
import re
import sys

import numpy as np
import pytest

from vsgrpo.training.rewards import (LENGTHS, READINGS, absolute_rewards, accuracy_reward, extract_answer,
                                     format_reward, length_reward, own_files, parse_rewards, relative_error_reward,
                                     reward_terms)
from vsgrpo.evaluation.vsibench import Question, parse_number, score_answer

N, D, W, L = "object_counting", "object_abs_distance", "object_rel_direction_easy", "route_planning"
TWO = ["A. Turn Left", "B. Turn Right"]
GOLD = {N: "4", D: "2.5", W: "left", L: "A"}

# question type, mode, completion, accuracy, format, why
CASES = [
    # numbers, plainly answered
    (N, "vanilla", "4", 1, 0, "the number"),
    (N, "vanilla", "4.", 1, 0, "a full stop carries nothing"),
    (N, "vanilla", " 4\n", 1, 0, "outer space carries nothing"),
    (N, "vanilla", "4.0", 1, 0, "the same number"),
    (N, "vanilla", "+4", 1, 0, "the official float reads the sign"),
    (N, "vanilla", "4 chairs", 1, 0, "a number and its unit"),
    (N, "vanilla", "4 office chairs.", 1, 0, "two words of unit"),
    (N, "vanilla", "5", .75, 0, "off by a quarter of the smaller"),
    (N, "vanilla", "3", 2/3, 0, "off by a third of the smaller"),
    (N, "vanilla", "8", 0, 0, "twice is worth nothing"),
    (N, "vanilla", "2", 0, 0, "half is worth nothing"),
    (D, "vanilla", "2.5 m", 1, 0, "unit of length"),
    (D, "vanilla", "2.0 meters", .75, 0, "relative error of a distance"),
    (D, "vanilla", "2.52", 1 - .02/2.5, 0, "more decimals than needed are no hack"),
    # numbers that nobody can read, or that nobody should pay
    (N, "vanilla", "", 0, 0, "empty"),
    (N, "vanilla", "   ", 0, 0, "space only"),
    (N, "vanilla", "four", 0, 0, "the official scorer reads no words"),
    (N, "vanilla", "nan", 0, 0, "not a number"),
    (N, "vanilla", "inf", 0, 0, "no finite number"),
    (N, "vanilla", "-inf", 0, 0, "no finite number"),
    (N, "vanilla", "0", 0, 0, "nothing is not a count"),
    (N, "vanilla", "-4", 0, 0, "negative"),
    (N, "vanilla", "0004", 0, 0, "padded in front"),
    (N, "vanilla", "4.0000", 0, 0, "padded behind"),
    (N, "vanilla", "4e0", 0, 0, "no plain number"),
    (N, "vanilla", "4_", 0, 0, "no number"),
    (N, "vanilla", "４", 0, 0, "no plain digit"),
    (N, "vanilla", "4,", 0, 0, "the official scorer cannot read it"),
    (N, "vanilla", "4m", 0, 0, "the official scorer cannot read it"),
    (N, "vanilla", "~4", 0, 0, "the official scorer cannot read it"),
    (N, "vanilla", "There are 4", 0, 0, "a sentence: the official scorer reads its first word"),
    (N, "vanilla", "4 5 6", 0, 0, "listed digits"),
    (N, "vanilla", "4, 5, 6", 0, 0, "listed digits"),
    (N, "vanilla", "4 or 5", 0, 0, "two answers"),
    (N, "vanilla", "4 or", 0, 0, "the start of a second answer"),
    (N, "vanilla", "4 or more", 0, 0, "not one number"),
    (N, "vanilla", "4 to five", 0, 0, "a range"),
    (N, "vanilla", "4 five", 0, 0, "a list in words"),
    (N, "vanilla", "4-5", 0, 0, "a range"),
    (N, "vanilla", "4/5", 0, 0, "a list"),
    (N, "vanilla", "4\n5", 0, 0, "a list over lines"),
    (N, "vanilla", "4 chairs in the room by the window", 0, 0, "longer than two words of unit"),
    (N, "vanilla", "<answer>4</answer>", 0, 0, "vanilla mode knows no tags"),
    (N, "vanilla", "4" * 40, 0, 0, "digits without end"),
    # words
    (W, "vanilla", "left", 1, 0, "the word"),
    (W, "vanilla", "Left.", 1, 0, "case and full stop carry nothing"),
    (W, "vanilla", "right", 0, 0, "the wrong word"),
    (W, "vanilla", "left or right", 0, 0, "both words"),
    (W, "vanilla", "left right", 0, 0, "both words"),
    (W, "vanilla", "to the left", 0, 0, "whole text must match"),
    (W, "vanilla", "left left", 0, 0, "the word twice"),
    (W, "vanilla", "lef", 0, 0, "part of a word"),
    (W, "vanilla", "A", 0, 0, "no options, no letters"),
    # letters
    (L, "vanilla", "A", 1, 0, "the letter"),
    (L, "vanilla", "a.", 1, 0, "case and full stop carry nothing"),
    (L, "vanilla", "A. Turn Left", 1, 0, "the option's line"),
    (L, "vanilla", "turn left", 1, 0, "the option's text"),
    (L, "vanilla", "B", 0, 0, "the wrong letter"),
    (L, "vanilla", "A or B or C", 0, 0, "several answers"),
    (L, "vanilla", "A, B", 0, 0, "several answers"),
    (L, "vanilla", "AB", 0, 0, "several answers"),
    (L, "vanilla", "A. Turn Right", 0, 0, "letter and text disagree"),
    (L, "vanilla", "(A)", 0, 0, "the official scorer cannot read it"),
    # tags
    (N, "think", "<think>One, two, three, four.</think><answer>4</answer>", 1, 1, "the required format"),
    (N, "think", "<think>One.</think>\n\n<answer> 4 </answer>", 1, 1, "space between the pairs and within"),
    (N, "observe", "<observe>Four chairs.</observe><answer>4</answer>", 1, 1, "the required format"),
    (N, "think", "<think>Five?</think><answer>5</answer>", .75, 1, "format does not ask for truth"),
    (N, "think", "<think></think><answer>4</answer>", 1, 0, "empty thinking"),
    (N, "think", "<think> </think> <answer>4</answer>", 1, 0, "the empty thinking that the paper met"),
    (N, "think", "<think>…</think><answer>4</answer>", 1, 0, "thinking without a letter"),
    (N, "think", "<think>Hm.</think><answer></answer>", 0, 0, "empty answer"),
    (N, "think", "<think>Hm.</think><answer> . </answer>", 0, 0, "answer without a letter or digit"),
    (N, "think", "4", 0, 0, "no tags"),
    (N, "think", "<answer>4</answer>", 1, 0, "no thinking"),
    (N, "think", "<think>Four: 4</think>", 0, 0, "no answer"),
    (N, "think", "<think>Hm.</think><answer>4", 0, 0, "cut off in the answer"),
    (N, "think", "<think>Hm.<answer>4</answer>", 1, 0, "thinking never closed"),
    (N, "think", "<think>Right.\n<think>\n<answer>4</answer>", 1, 0, "opened twice, as in the paper's Figure 3"),
    (N, "think", "<think>a</think><think>b</think><answer>4</answer>", 1, 0,
     "thinking tags repeated, the hack of the length reward"),
    (N, "think", "<think>a</think><answer>4</answer><answer>4</answer>", 0, 0, "answer tags repeated"),
    (N, "think", "<think>a</think><answer>3</answer><answer>4</answer>", 0, 0, "two answers"),
    (N, "think", "<think>a</think><answer><answer>4</answer></answer>", 0, 0, "nested answers"),
    (N, "think", "<answer>4</answer><think>a</think>", 1, 0, "the wrong order"),
    (N, "think", "<think>a <answer>4</answer></think>", 1, 0, "answer within the thinking"),
    (N, "think", "Sure! <think>a</think><answer>4</answer>", 1, 0, "words before"),
    (N, "think", "<think>a</think><answer>4</answer> Done.", 1, 0, "words after"),
    (N, "think", "<think>a</think> so <answer>4</answer>", 1, 0, "words between"),
    (N, "think", "<THINK>a</THINK><ANSWER>4</ANSWER>", 0, 0, "other tags"),
    (N, "think", "<observe>a</observe><answer>4</answer>", 1, 0, "the tags of another mode"),
    (N, "observe", "<think>a</think><answer>4</answer>", 1, 0, "the tags of another mode"),
    (N, "think", "</think>a<think></answer>4<answer>", 0, 0, "tags back to front"),
    (N, "think", "<think>a</think><answer>4 or 5 or 6</answer>", 0, 1, "several answers in good form"),
    (W, "think", "<think>I face the door.</think><answer>left</answer>", 1, 1, "a word"),
    (W, "think", "<think>left left left</think><answer>right</answer>", 0, 1, "only the answer counts"),
    (L, "observe", "<observe>A sofa.</observe>\n<answer>A. Turn Left</answer>", 1, 1, "the option's line"),
    (L, "observe", "<observe>A sofa.</observe>\n<answer>A or B</answer>", 0, 1, "several answers in good form"),
]

def test_enough_cases(): assert len(CASES) >= 60 and len({c[:3] for c in CASES}) == len(CASES)

@pytest.mark.parametrize("kind,mode,text,accuracy,shape,why", CASES)
def test_case(kind, mode, text, accuracy, shape, why):
    options = [TWO] if kind == L else None
    assert accuracy_reward([text], [kind], [GOLD[kind]], mode, options=options) == [pytest.approx(accuracy)], why
    assert format_reward([text], mode) == [shape], why

@pytest.mark.parametrize("kind,mode,text,accuracy,shape,why", CASES)
def test_a_reward_pays_what_the_scorer_reads(kind, mode, text, accuracy, shape, why):
    "Under the MRA reading, a paid answer has the score of the evaluation, and one that scores 0 there is not paid."
    q = Question(0, "toy", "s", kind, "?", GOLD[kind], TWO if kind == L else None)
    paid = accuracy_reward([text], kind, GOLD[kind], mode, reading="mra", options=[q.options])[0]
    answer = extract_answer(text, mode)
    assert paid in (0, score_answer(q, answer or "", "tagged")), why

# ---- readings

@pytest.mark.parametrize("pred,gold,linear,ratio", [(4, 4, 1, 1), (6, 4, .5, 2/3), (4, 6, .5, 2/3), (8, 4, 0, .5),
                                                    (4, 8, 0, .5), (100, 4, 0, .04), (4.4, 4, .9, 1/1.1)])
def test_readings_by_hand(pred, gold, linear, ratio):
    assert relative_error_reward(pred, gold) == pytest.approx(linear)
    assert relative_error_reward(pred, gold, "ratio") == pytest.approx(ratio)
    d = abs(pred - gold)/min(pred, gold)
    assert relative_error_reward(pred, gold, "exp") == pytest.approx(math.exp(-d)) and 1/(1 + d) == pytest.approx(ratio)

@pytest.mark.parametrize("reading", READINGS)
def test_readings_bounds(reading):
    rng = np.random.default_rng(0)
    pairs = rng.lognormal(0, 1, (500, 2))
    values = [relative_error_reward(p, g, reading) for p, g in pairs]
    assert min(values) >= 0 and max(values) <= 1 and relative_error_reward(3, 3, reading) == 1
    assert [relative_error_reward(p, 4, reading) for p in (None, 0, -1, math.nan, math.inf, -math.inf)] == [0]*6

def test_first_three_readings_rank_alike():
    errors = np.linspace(.001, .999, 200)
    for pred in (1 + errors, 1/(1 + errors)):
        for reading in ("linear", "ratio", "exp"):
            values = [relative_error_reward(p, 1, reading) for p in pred]
            assert all(np.diff(values) < 0)

def test_refusals():
    with pytest.raises(ValueError, match="reading is 'steep'"): relative_error_reward(1, 1, "steep")
    for gold in (0, -1, math.nan):
        with pytest.raises(ValueError, match="gold is"): relative_error_reward(1, gold)
    with pytest.raises(ValueError, match="mode is 'loud'"): extract_answer("4", "loud")
    with pytest.raises(ValueError, match="mode is 'loud'"): format_reward(["4"], "loud")
    with pytest.raises(ValueError, match="question_type is 'size'"): accuracy_reward(["4"], "size", "4", "vanilla")
    with pytest.raises(ValueError, match="ground_truth has 2 rows, expected 1"):
        accuracy_reward(["4"], [N], ["4", "5"], "vanilla")

# ---- TRL's shape

def test_batches_of_many_kinds():
    texts = ["4", "<think>a</think><answer>left</answer>", "B"]
    got = accuracy_reward(completions=texts, question_type=[N, W, L], ground_truth=["4", "left", "A"],
                          mode=["vanilla", "think", "vanilla"], options=[None, None, TWO], prompts=["?"]*3,
                          completion_ids=[[1]]*3, trainer_state=None)
    assert got == [1, 1, 0] and all(type(v) is float for v in got)
    assert format_reward(texts, mode=["vanilla", "think", "vanilla"], prompts=["?"]*3) == [0, 1, 0]
    assert accuracy_reward([], [], [], "vanilla") == [] == format_reward([], "think")

def test_conversations():
    text = "<think>a</think><answer>4</answer>"
    talks = [[{"role": "assistant", "content": text}],
             [{"role": "assistant", "content": [{"type": "text", "text": text}]}]]
    assert accuracy_reward(talks, N, "4", "think") == [1, 1] and format_reward(talks, "think") == [1, 1]

def test_length_reward_cannot_be_bought_with_tags():
    good, tags = "<think>a</think><answer>4</answer>", "<think>a</think>"*9 + "<answer>4</answer>"
    wrong, ids = "<think>a</think><answer>9</answer>", [0]*400
    for form in ("window", "ramp", "words"):
        paid = length_reward([good, tags, wrong], [ids]*3, N, "4", "think", form)
        assert paid[0] > 0 and paid[1:] == [0, 0], form
    # the one that was hacked
    assert length_reward([good, tags, wrong], [ids]*3, N, "4", "think", "naive") == [400/512]*3
    assert [length_reward([good], [[0]*n], N, "4", "think")[0] for n in (319, 320, 512, 513)] == [0, 1, 1, 0]
    assert set(LENGTHS) == {"window", "ramp", "words", "naive"}

def test_words_are_not_bought_by_repetition():
    once, often = (f"<think>{t}</think><answer>4</answer>"
                   for t in ("the bed is by the door", "the bed is by the door "*20))
    row = (N, "4", "think", "words")
    assert length_reward([once], [[0]*20], *row) == length_reward([often], [[0]*400], *row)

@pytest.mark.parametrize("line, words", [("accuracy:steep", "no form 'steep'"),
                                         ("accuracy format format*2", "names a reward twice"),
                                         ("length:window(5,2)", "low < high"), ("", "is empty"),
                                         ("accuracy(1,2)", "is not a term"), ("os:system", "is not a term"),
                                         ("gone.py:f", "/gone.py"), ("accuracy:linear(1,2)", "takes no limits"),
                                         ("accuracy*-1", "is not a term")])
def test_a_line_of_rewards_that_means_nothing_is_refused(line, words):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)): reward_terms(line)

def test_numbers_are_read_by_one_parser():
    for text in ("4", "4.", "4 chairs", "2.5 m", "+4", "17.25"):
        value = parse_number(text)
        assert accuracy_reward([text], D, str(value), "vanilla") == [1.]

# ---- functions of one's own

def paying(folder, code, name="mine.py"):
    "A function `pay` of a file that holds some code."
    (folder/name).write_text(code)
    return reward_terms(f"{folder/name}:pay")[0].function

def test_reading_a_line_of_rewards_loads_nothing(tmp_path):
    (tmp_path/"mine.py").write_text(f"open({str(tmp_path/'mark')!r}, 'w').close()\ndef pay(completions, **kw): return "
                                    "[0]*len(completions)")
    line = f"accuracy*0.5 {tmp_path/'mine.py'}:pay"
    assert [(n.name, n.form, n.weight) for n in parse_rewards(line)] == [("accuracy", "linear", .5),
                                                                         (str(tmp_path/"mine.py"), "pay", 1)]
    assert own_files(line) == [tmp_path/"mine.py"] and not (tmp_path/"mark").exists()
    reward_terms(line)
    assert (tmp_path/"mark").exists()

def test_a_file_is_loaded_once_and_is_a_module(tmp_path):
    "A dataclass with `annotations` from `__future__` looks itself up in `sys.modules`; a helper lies beside the file."
    (tmp_path/"own_helper.py").write_text("worth = .5")
    path, loaded = list(sys.path), f"open({str(tmp_path/'loads')!r}, 'a').write('x')"
    code = f"""from __future__ import annotations
from dataclasses import dataclass
from own_helper import worth
{loaded}
@dataclass
class Worth:
    of: float = worth
def pay(completions, **kw): return [Worth().of]*len(completions)
def also(completions, **kw): return [1]*len(completions)"""
    pay = paying(tmp_path, code)
    assert pay(completions=["a"]) == [.5] and sys.path == path
    reward_terms(f"{tmp_path/'mine.py'}:also {tmp_path/'mine.py'}:pay")
    (tmp_path/"mine.py").unlink()                      # it is needed no more
    reward_terms(f"{tmp_path/'mine.py'}:pay")
    assert (tmp_path/"loads").read_text() == "x"

def test_a_file_that_fails_is_loaded_again(tmp_path):
    with pytest.raises(ZeroDivisionError): paying(tmp_path, "1/0")
    assert paying(tmp_path, "def pay(completions, **kw): return [1]*len(completions)")(completions=["a"]) == [1]

def test_two_files_of_one_name_are_two_modules(tmp_path):
    "And neither takes the name of a module of Python's."
    for k in (1, 2): (tmp_path/f"{k}").mkdir()
    pays = [paying(tmp_path/f"{k}", f"def pay(completions, **kw): return [{k}]", "json.py") for k in (1, 2)]
    assert [p(completions=["a"]) for p in pays] == [[1], [2]] and sys.modules["json"].loads("1") == 1

@pytest.mark.parametrize("gives, words", [
    ("{'a': 1, 'b': 2}", "gave a dict, {'a': 1, 'b': 2}"), ("{1: 'a', 2: 'b'}", "gave a dict"), ("None", "gave None"),
    ("1.5", "gave a float, 1.5"), ("'no'", "gave a str, 'no'"),
    ("{1, 2}", "gave a set"), ("[1]", "gave [1], 1 of them"), ("[1, 'x']", "gave [1, 'x']"),
    ("[1, float('nan')]", "gave [1, nan]"), ("[1, 10**400]", "2 of them"),
    ("torch.tensor(1.)", "gave a Tensor"), ("torch.ones(2, 2)", "2 of them")])
def test_what_is_no_list_of_rewards_is_refused_by_name(tmp_path, gives, words):
    pay = paying(tmp_path, f"import torch\ndef pay(completions, **kw): return {gives}")
    with pytest.raises(ValueError, match=re.escape(words)) as e: pay(completions=["a", "b"])
    assert f"{tmp_path/'mine.py'}:pay gave" in str(e.value)
    assert "wanted a list with a finite number or None for each of 2 completions" in str(e.value)

def test_rewards_in_any_sequence_are_taken(tmp_path):
    for gives in ("[1, None]", "(1., None)", "iter([True, None])", "numpy.array([1, None])"):
        assert paying(tmp_path, f"import numpy\ndef pay(completions, **kw): return {gives}",
                      f"m{abs(hash(gives))}.py")(completions=["a", "b"]) == [1, None]
    assert paying(tmp_path, "import torch\ndef pay(completions, **kw): return torch.tensor([.5, 1.])",
                  "t.py")(completions=["a", "b"]) == [.5, 1.]

def test_an_async_function_is_refused_before_it_is_called(tmp_path):
    with pytest.raises(ValueError, match="mine.py:pay is `async def`, wanted a plain function that returns a list"):
        paying(tmp_path, "async def pay(completions, **kw): return [1]")

def test_a_line_of_rewards_means_the_same_anywhere(tmp_path, monkeypatch):
    "Its files get absolute paths, in which there may be spaces; a line without files stays as it is."
    (tmp_path/"my own").mkdir()
    monkeypatch.chdir(tmp_path/"my own")
    (tmp_path/"my own/mine.py").write_text("def pay(completions, **kw): return [2]*len(completions)")
    line = absolute_rewards("accuracy:ratio mine.py:pay*0.5")
    assert line == f"accuracy:ratio {tmp_path}/my own/mine.py:pay*0.5" == absolute_rewards(line)
    monkeypatch.chdir(tmp_path)
    assert own_files(line) == [tmp_path/"my own/mine.py"]
    assert [(t.name, t.weight) for t in reward_terms(line)] == [("accuracy_reward", 1), ("pay_reward", .5)]
    assert absolute_rewards("accuracy  format") == "accuracy  format"
