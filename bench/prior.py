"""How much of the questions can be answered without the video?

    .venv/bin/python bench/prior.py                            # ten settings of the prior, six minutes on one core
    .venv/bin/python bench/prior.py --rooms 40 --settings 2    # that the bench itself works

In a world with the dial `prior` (nbs/13d_world_dials.ipynb), rooms are drawn at each setting from 0 (uniform) to 1
(deterministic). A text-only model learns from the questions, options and answers of training rooms and answers the
questions about development rooms; both are in the benchmark's form. Nothing is rendered: the order of appearance is
that in which the centres of objects enter the frame. `chance` is the best constant of the training rooms: any
number, the words of directions and turns that are right most often, or a letter. The last line is one JSON object.
"""
import argparse
import json
import re
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from itertools import combinations

import numpy as np
from scipy.stats import spearmanr
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold

from vsgrpo.data.camera_path import camera_path
from vsgrpo.data.dataset import FIRST_SEED
from vsgrpo.data.questions import make_questions
from vsgrpo.data.room_catalogue import CATEGORIES
from vsgrpo.data.rooms import make_room
from vsgrpo.data.scene_facts import category_of
from vsgrpo.evaluation.scores import best_constant, paired_difference, score_table
from vsgrpo.evaluation.vsibench import DIRECTION_TYPES, LETTERS, MRA_MARGINS, NA_TYPES, mra, score_answer
from vsgrpo.teaching.lessons import facts_of_room

NAMES = sorted({category_of(c) for c in CATEGORIES}, key=len, reverse=True)
NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
PENALTIES = (1., 10., 300.)             # strength of the penalty on weights; chosen on training rooms
FACTORS = np.exp(np.linspace(-.5, .5, 41))
WORDED = (*DIRECTION_TYPES, "route_planning")    # types whose options are words that return in other rooms


def first_seen(room, n_frames=32):
    "Category → first frame in which the centre of an object lies in the image."
    poses, intrinsic = camera_path(room, n_frames)
    centres = np.array([i.centre for i in room.items])
    seen = (centres[None] - poses[:, None, :3, 3]) @ poses[:, :3, :3] @ intrinsic.T
    x, y = seen[..., 0]/seen[..., 2], seen[..., 1]/seen[..., 2]
    inside = (seen[..., 2] > 0) & (0 < x) & (x < room.preset.width) & (0 < y) & (y < room.preset.height)
    frames = {}
    for item, shown in zip(room.items, inside.T):
        if not shown.any(): continue
        name = category_of(item.category)
        frames[name] = min(int(np.argmax(shown)), frames.get(name, n_frames))
    return frames


def questions_of(world, split, rooms, per_type):
    "Questions about the first rooms of a split."
    questions = []
    for seed in range(FIRST_SEED[split], FIRST_SEED[split] + rooms):
        room = make_room(seed, world)
        questions += make_questions(facts_of_room(room, first_seen(room)), "vsibench", per_type=per_type)
    return questions


# a model that sees text alone

def name_tokens(question):
    "Tokens of the names in a question: each at its position, pairs, triples."
    names = NAME.findall(question)
    near = [(i, j) for i, j in combinations(range(len(names)), 2) if len(names) <= 3 or j == i + 1]
    tokens = ["all", *(f"{i} {name}" for i, name in enumerate(names))]
    tokens += [f"{i} {names[i]} {j} {names[j]}" for i, j in near]
    tokens += [" & ".join(sorted((names[i], names[j]))) for i, j in near]
    if len(names) == 3: tokens.append(" ".join(names))
    return tokens


def option_tokens(question, option):
    "Tokens of an option: its parts with the names in the question, and the order of its parts."
    parts = option[3:].split(", ")
    tokens = [f"{k} {part} | {token}" for token in name_tokens(question) for k, part in enumerate(parts)]
    return tokens + [f"{a} < {b}" for a, b in combinations(parts, 2)]


def hashed(rows): return FeatureHasher(2**18, input_type="string").transform(rows)


class NumberModel:
    "Predict the logarithm of a number; a factor makes the best of the benchmark's score."
    def __init__(self, penalty): self.model, self.factor = Ridge(penalty, solver="sparse_cg"), 1.

    def fit(self, questions):
        self.model.fit(hashed(name_tokens(q.question) for q in questions),
                       np.log([float(q.ground_truth) for q in questions]))
        return self

    def numbers(self, questions): return np.exp(self.model.predict(hashed(name_tokens(q.question) for q in questions)))

    def calibrate(self, numbers, questions):
        "Choose the factor on predictions for rooms that were left out."
        golds = [float(q.ground_truth) for q in questions]
        self.factor = max(FACTORS, key=lambda f: np.mean([mra(f*n, g) for n, g in zip(numbers, golds)]))

    def answers(self, questions): return [f"{self.factor*n:.3f}" for n in self.numbers(questions)]


class ChoiceModel:
    "Predict for each option whether it is right; the answer is the likeliest one."
    def __init__(self, penalty): self.model = LogisticRegression(C=1/penalty, solver="liblinear")

    def fit(self, questions):
        rows = [(q, option) for q in questions for option in q.options]
        self.model.fit(hashed(option_tokens(q.question, option) for q, option in rows),
                       [option[0] == q.ground_truth for q, option in rows])
        return self

    def answers(self, questions):
        rows = [(q.question, option) for q in questions for option in q.options]
        scores = iter(self.model.decision_function(hashed(option_tokens(*row) for row in rows)))
        return [LETTERS[int(np.argmax([next(scores) for _ in q.options]))] for q in questions]


def mean_score(questions, answers):
    return np.mean([score_answer(q, str(answer)) for q, answer in zip(questions, answers)])


def fit_text_model(questions):
    "Fit the model of one question type; the penalty that suits left-out training rooms best is kept."
    kind, scenes = (ChoiceModel if questions[0].is_mca else NumberModel), [q.scene_name for q in questions]
    folds, found = list(GroupKFold(3).split(questions, groups=scenes)), []
    for penalty in PENALTIES:
        model, guessed = kind(penalty), {}
        for train, left in folds:
            model.fit([questions[i] for i in train])
            part = [questions[i] for i in left]
            guessed |= dict(zip(left, model.answers(part) if part[0].is_mca else model.numbers(part)))
        outputs = [guessed[i] for i in range(len(questions))]
        if kind is NumberModel:
            model.calibrate(outputs, questions)
            outputs = [model.factor*n for n in outputs]
        found.append((mean_score(questions, outputs), penalty, model))
    return max(found, key=lambda f: f[:2])[2].fit(questions)


def best_number(questions):
    "Number with the highest mean score as the answer to all questions."
    golds = np.array([float(q.ground_truth) for q in questions])
    constants = np.geomspace(golds.min(), golds.max(), 400)
    return f"{max(constants, key=lambda x: (np.abs(x - golds)[:, None]/golds[:, None] <= MRA_MARGINS).mean()):.3f}"


def constant_answers(train, questions):
    "Answer without the names in a question: with the best number, word or letter of the training rooms."
    best, right, offered = best_constant(train), defaultdict(int), defaultdict(int)
    best |= {kind: best_number(group) for kind, group in by_type(train).items() if kind in NA_TYPES}
    for q in train:
        for option in q.options or (): offered[q.question_type, option[3:]] += 1
        if q.options: right[q.question_type, q.options[LETTERS.index(q.ground_truth)][3:]] += 1
    def share(q, option): return right[q.question_type, option[3:]]/max(1, offered[q.question_type, option[3:]])
    return [max(q.options, key=lambda option: share(q, option))[0] if q.question_type in WORDED
            else best[q.question_type] for q in questions]


def by_type(questions):
    groups = defaultdict(list)
    for q in questions: groups[q.question_type].append(q)
    return groups


def text_answers(train, questions):
    "Answers of text-only models that learn from the training rooms, by id."
    models = {kind: fit_text_model(group) for kind, group in by_type(train).items()}
    answers = {}
    for kind, group in by_type(questions).items():
        answers |= dict(zip([q.id for q in group], models[kind].answers(group)))
    return answers


def measure(prior, base="overview", rooms=200, train_rooms=400):
    "Scores of the text-only model and of chance at one setting of the prior."
    world = f"{base} prior:{prior}"
    train, dev = questions_of(world, "train", train_rooms, 3), questions_of(world, "dev", rooms, 2)
    text, constant = text_answers(train, dev), constant_answers(train, dev)
    scores, chance = score_table(dev, text, n_boot=0), score_table(dev, constant, n_boot=0)
    gaps = paired_difference(dev, text, dict(zip([q.id for q in dev], constant)))
    def column(table, name): return {t: round(float(x), 2) for t, x in zip(table.question_type, table[name])}
    return dict(prior=prior, questions=len(dev), score=column(scores, "score"), chance=column(chance, "score"),
                gap=column(gaps, "difference"), gap_low=column(gaps, "ci_low"), gap_high=column(gaps, "ci_high"))


def rank_correlations(rows):
    "Rank correlation with the prior: of the overall score, of what it is above chance, and of the score by task."
    priors = [row["prior"] for row in rows]
    def rank(what, task): return round(float(spearmanr(priors, [row[what][task] for row in rows])[0]), 3)
    return dict(overall=rank("score", "overall"), above_chance=rank("gap", "overall"),
                tasks={task: rank("score", task) for task in rows[0]["score"] if task != "overall"})


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rooms", type=int, default=200, help="development rooms at each setting")
    p.add_argument("--train-rooms", type=int, default=0, help="training rooms at each setting; 0: twice as many")
    p.add_argument("--settings", type=int, default=10, help="settings of the prior, evenly spaced from 0 to 1")
    p.add_argument("--preset", default="overview")
    args = p.parse_args()
    start, rows = time.time(), []
    for prior in np.linspace(0, 1, args.settings).round(4).tolist():
        row = measure(prior, args.preset, args.rooms, args.train_rooms or 2*args.rooms)
        rows.append(row)
        print(f"prior {prior:.2f}: text alone {row['score']['overall']:.1f}, chance {row['chance']['overall']:.1f}, "
              f"above chance {row['gap']['overall']:+.1f} [{row['gap_low']['overall']:.1f}, "
              f"{row['gap_high']['overall']:.1f}], {time.time() - start:.0f} s", flush=True)
    ranks = rank_correlations(rows)
    print(f"rank correlation with the prior: {ranks}")
    print(json.dumps(dict(bench="prior", preset=args.preset, rooms=args.rooms,
                          train_rooms=args.train_rooms or 2*args.rooms, seconds=round(time.time() - start),
                          versions={"scikit-learn": version("scikit-learn")}, rank_correlation=ranks, rows=rows)))


if __name__ == "__main__": sys.exit(main())
