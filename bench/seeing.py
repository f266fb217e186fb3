"""What makes the tiny base see?

    .venv/bin/python bench/seeing.py                             # 6 recipes × 2 seeds, most of an hour on 2 cores
    .venv/bin/python bench/seeing.py --steps 24 --rooms 40 --unseen 20   # that the bench itself works

The recipe is that of nbs/16_tiny_base.ipynb cut short: 350 steps of 1,700, 5,600 rooms each seen once, and no
questions in the benchmark's form. Each row changes one part of it and evaluates on held-out rooms with their own film
and with another room's: the more the two scores differ, the more the model looks. The last line is one JSON object.
"""
import argparse
import json
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd

from vsgrpo.teaching.lessons import draw_lessons
from vsgrpo.teaching.tiny_base import fresh_base, grounding_eval, train_base

ROOMS_SEED = 20   # no base's
DRAWN = []        # answer pool, unseen lessons, lessons; the workers inherit it
RECIPES = {
    "the recipe": {},
    "few rooms (600, seen again and again)": dict(rooms=600),
    "larger tokens (frames of 56 pixels, 32 tokens)": dict(size=56),
    "one question behind a film, not 14": dict(n_ground=1),
    "no naming loss": dict(naming=0., look=0),
    "attention not supervised": dict(attention=0.),
}


def train_recipe(job):
    "Train and evaluate one recipe: a row of the table."
    name, seed, steps = job
    pool, unseen, lessons = DRAWN
    import torch
    torch.set_num_threads(1)
    recipe = {"rooms": len(lessons)} | {k: v for k, v in RECIPES[name].items() if k != "size"}
    part = lessons[:recipe.pop("rooms")]
    model, processor, reader = fresh_base(part, pool, seed)
    curve = train_base(model, processor, reader, part, pool, steps, seed=seed, n_form=0, **recipe)
    own_film = grounding_eval(model, processor, reader, unseen)
    other_film = grounding_eval(model, processor, reader, unseen, 7)
    scores = {kind: (own_film[kind], other_film[kind]) for kind in own_film}
    return dict(recipe=name, seed=seed, seconds=curve[-1]["seconds"], **scores)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--steps", type=int, default=350)
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--rooms", type=int, default=5600)
    p.add_argument("--unseen", type=int, default=300)
    p.add_argument("--workers", type=int, default=2, help="recipes at the same time, one thread each")
    args = p.parse_args()
    rows, start = [], time.time()
    for size in sorted({r.get("size", 84) for r in RECIPES.values()}):
        DRAWN[:] = draw_lessons(args.rooms, args.unseen, ROOMS_SEED, size=size, workers=args.workers)
        names = [name for name, recipe in RECIPES.items() if recipe.get("size", 84) == size]
        jobs = [(name, seed, args.steps) for name in names for seed in range(args.seeds)]
        with ProcessPoolExecutor(args.workers, mp_context=get_context("fork")) as workers:
            for row in workers.map(train_recipe, jobs):
                rows.append(row)
                print(row, flush=True)
    table = pd.DataFrame(rows)
    kinds = [k for k in table if k not in ("recipe", "seed", "seconds")]
    shown = {}
    for name, group in table.groupby("recipe", sort=False):
        shown[name] = {k: " · ".join(f"{own:.0f}/{other:.0f}" for own, other in group[k]) for k in kinds}
        shown[name]["seconds"] = round(group.seconds.mean())
    print(pd.DataFrame(shown).T.reindex([name for name in RECIPES if name in shown]).to_string())
    print(json.dumps(dict(bench="seeing", steps=args.steps, rooms=args.rooms, unseen=args.unseen,
                          machine=platform.machine(), seconds=round(time.time() - start), rows=rows)))


if __name__ == "__main__": sys.exit(main())
