"The hall of GRPO: its objective and its plan."
import pytest

from vsgrpo import grpo
from vsgrpo.trainer import settle
from vsgrpo.vsi100k import open_dataset


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))

def test_a_plan_tells_what_a_run_costs(data, monkeypatch):
    "Memory against what is free, seconds of measured steps, hours of the whole; and no step is tried where it will not fit."
    s = settle("smoke", "tiny", steps=100, questions_per_step=2, num_generations=4, max_new_tokens=6)
    told = grpo.plan(s, data)
    assert told.fits and set(told.step) == {"rollout", "reference", "policy", "step"} and told.step["step"] > told.step["rollout"] + told.step["policy"] > 0
    assert told.hours["training"] == pytest.approx(told.step["step"]*100/3600) and told.hours["testing"] > 0 and "MiB" in str(told)
    monkeypatch.setattr(grpo, "memory_free", lambda: told.memory["total"] - 1)
    monkeypatch.setattr(grpo, "make_trainer", None)
    with pytest.warns(UserWarning, match="will not fit.* it fits with -p gradient_checkpointing True"): tight = grpo.plan(s, data)
    assert not tight.fits and not tight.step
    monkeypatch.setattr(grpo, "memory_free", lambda: 1000)
    with pytest.warns(UserWarning, match="weights of tiny alone take"): grpo.plan(s, data)
