"Planted faults stop a training, sound runs do not: a short form of bench/sabotage.py."
import importlib.util
import shutil
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from vsgrpo.evaluation.records import Run


@pytest.fixture(scope="module")
def sabotage(root):
    "The bench as a module."
    spec = importlib.util.spec_from_file_location("sabotage", root/"bench"/"sabotage.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


@pytest.fixture(scope="module")
def rooms(built_rooms): return built_rooms(4, 2, 2)


@pytest.fixture(autouse=True)
def own_caches(sabotage, tmp_path):
    "No cache of other runs."
    with ExitStack() as patches:
        for module, name in sabotage.CACHES:
            patches.enter_context(patch.object(module, name, lambda name=name: tmp_path/name))
        yield


@pytest.mark.parametrize("fault, step, words", [
    ("features of another video, checksum made anew", 1, "the vision features differ"),
    ("vision tokens permuted", 1, "other inputs than a plain pass over this film"),
    ("frames reversed", 1, "decoded again, are not those"),
    ("all positions zero", 1, "other inputs than a plain pass over this film"),
    ("adapter off in rollouts", 3, "the rollouts are not of this policy"),
    ("reference equal to policy", 3, "policy and reference are exactly equal"),
    ("rewards paid to shuffled completions", 1, "computed again it is"),
    ("advantages rolled by one", 1, "are not those of the rollouts"),
    ("an optimiser that does nothing", 2, "the optimiser does nothing"),
    ("loss negated", 1, "it is -1 times as large"),
    ("films exchanged before the run", 0, "are not those that the dataset was built with"),
])
def test_a_planted_fault_is_caught(sabotage, rooms, tmp_path, fault, step, words):
    folder = shutil.copytree(rooms, tmp_path/"data")
    (tmp_path/"own").mkdir()
    s = sabotage.settings(steps=4, questions_per_step=4, num_generations=8, probe_every=0)
    with sabotage.FAULTS[fault](folder, tmp_path/"own"): caught, message = sabotage.attempt(s, folder, tmp_path/"run")
    assert caught == step and words in message


@pytest.mark.parametrize("name", ["two updates a rollout", "bfloat16", "SFT", "blind on purpose",
                                  "a reward of one's own that now and then pays nothing"])
def test_a_sound_run_is_left_alone(sabotage, rooms, tmp_path, name):
    step, message = sabotage.sound(name, sabotage.SOUND[name] | dict(steps=4), rooms, tmp_path/"run")
    assert step is None, message
    metrics = Run(tmp_path/"run").read_metrics()
    assert name == "SFT" or metrics.rollout_gap.max() < (5e-2 if name == "bfloat16" else 1e-5)
