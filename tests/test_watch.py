"What goes wrong is reported: patterns, signs of trouble, collapse."
import numpy as np
import pandas as pd
import pytest

from vsgrpo.training.watch import HACKS, Limits, collapse_onset, collapsed, find_hacks, hack_rates, warnings_of

# ---- signs of trouble

def test_trouble_is_reported_and_health_is_not():
    m = pd.DataFrame({"step": range(1, 21), "loss": 0., "kl": .01, "zero_variance_groups": .3})
    def row(step, i):
        return dict(step=step, id=i, question_type="object_counting", ground_truth=str(i), mode="think",
                    completion=f"<think>one two three</think><answer>{i}</answer>")
    good = pd.DataFrame([row(step, i) for step in range(1, 21) for i in range(4)])
    assert warnings_of(m, good) == []
    assert warnings_of(m.assign(kl=[np.nan]*15 + [.1]*5), good) == ["kl was not finite in step 11 and 4 more"]
    assert warnings_of(m.assign(zero_variance_groups=1.), good) == [
        "100% of the groups have equal rewards: they teach nothing"]
    hollow = good.assign(completion=good.completion.str.replace("one two three", ""))
    assert warnings_of(m, hollow) == ["100% of the completions show the pattern 'under 3 words of thought'"]
    constant = good.assign(completion="<think>one two three</think><answer>4</answer>")
    assert warnings_of(m, constant) == ["object_counting: 100% of the answers are '4'"]
    assert warnings_of(m, constant.assign(ground_truth="4")) == []      # one right answer for all: no guess
    assert warnings_of(m, good.drop(columns="mode")) == []

@pytest.mark.parametrize("text, mode, wanted", [
    ("<think>There are 12 office chairs in the room.</think>\n<answer>12</answer>", "think", ["template"]),
    ("<think>There is a bed in this room</think><answer>1</answer>", "think", ["template"]),
    ("<think>There are many chairs in the room</think><answer>4</answer>", "think", []),
    ("<think></think><answer>4</answer>", "think", ["under 3 words of thought"]),
    ("<think>Hm hm</think><answer>4</answer>", "think", ["under 3 words of thought"]),
    ("<answer>4</answer>", "think", []),
    ("<think>a b c</think><answer>4</answer><answer>4</answer>", "think", ["extra tags"]),
    ("<observe>a b c</observe><observe>a b c</observe><answer>4</answer>", "observe", ["extra tags"]),
    ("<think>4</think>", "vanilla", ["extra tags"]),
    ("<think>a b c</think><answer>4/5</answer>", "think", ["several answers"]),
    ("left or right", "vanilla", ["several answers"]),
    ("2.5 m", "vanilla", []), ("", "vanilla", []), ("", "think", []),
    ("no " * 50, "vanilla", ["repetition"]),
])
def test_each_pattern_has_its_cases(text, mode, wanted): assert find_hacks(text, mode) == wanted

def test_shares_are_of_completions():
    rows = pd.DataFrame([dict(step=1, id=i, question_type="object_counting", ground_truth=str(i), mode="vanilla",
                              completion=c) for i in range(4) for c in ("4", "4", "3 or 4", str(i))])
    shares = hack_rates(rows)
    assert set(shares) == {*HACKS, "constant answer"}
    assert shares["several answers"] == 1/4 and shares["constant answer"] == 8/16
    assert "constant answer" not in hack_rates(rows[rows.id < 2])           # two questions say nothing

def test_collapse_needs_a_height_to_fall_from():
    n = 30
    m = pd.DataFrame(dict(step=np.arange(1, n + 1), reward=np.linspace(0, .09, n)[::-1], format=0., kl=.1, entropy=1.,
                          loss=0.))
    assert not any(collapsed(m[:i]) for i in range(n + 1))
    m["format"] = np.r_[np.ones(20), np.zeros(10)]
    first = next(i for i in range(n + 1) if collapsed(m[:i]))
    assert first == 23 and "format reward fell from 1.00" in collapsed(m[:first])
    assert collapsed(m[:first], Limits(format=0.)) == ""

def test_a_collapse_is_dated_by_its_first_step_not_by_the_rule():
    "The rule cannot speak before step 10; the reward was gone in step 4, or 8, and stayed gone."
    def run(*reward):
        return pd.DataFrame(dict(step=np.arange(1, len(reward) + 1), reward=np.array(reward, float), kl=.1, entropy=1.,
                                 loss=0.))
    for start in (4, 6, 8):
        m = run(*[.8]*(start - 1), *[0.]*20)
        noticed = next(i for i in range(len(m) + 1) if collapsed(m[:i]))
        assert noticed >= 10 and collapse_onset(m[:noticed]) == start
    # a step in which it is back does not count as gone
    assert collapse_onset(run(*[.8]*6, .3, .3, .5, *[.3]*3, *[.1]*6)) == 10
    late = run(*[.8]*30, 0, 0, 0, 0, .7)
    # back in the last step: only the report is known
    assert collapsed(late) and collapse_onset(late) == 35
    assert collapse_onset(run(*[.8]*15)) is None and collapse_onset(run()) is None
    m = run(*[.8]*12)
    m.loc[11, "loss"] = np.nan
    assert collapse_onset(m) == 12
    m = run(*[.8]*20).assign(kl=np.r_[np.full(13, .1), np.full(7, 9.)])
    assert collapsed(m).startswith("KL") and collapse_onset(m) == 14
