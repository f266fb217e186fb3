"The chapter of GRPO: its objective and its plan."
import pytest

from vsgrpo.training import budget, trainer
from vsgrpo.training.settings import default_settings
from vsgrpo.data.dataset import open_dataset


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))

def test_a_plan_tells_what_a_run_costs(data, monkeypatch):
    "Memory against what is free, seconds of measured steps, hours of the whole; and no step is tried where it will not fit."
    s = default_settings("smoke", "tiny", steps=100, questions_per_step=2, num_generations=4, max_new_tokens=6)
    told = budget.plan(s, data)
    assert told.fits and set(told.step) == {"rollout", "reference", "policy", "step"} and told.step["step"] > told.step["rollout"] + told.step["policy"] > 0
    assert told.hours["training"] == pytest.approx(told.step["step"]*100/3600) and told.hours["testing"] > 0 and "MiB" in str(told)
    monkeypatch.setattr(budget, "memory_free", lambda: told.memory["total"] - 1)
    monkeypatch.setattr(trainer, "make_trainer", None)
    with pytest.warns(UserWarning, match="will not fit.* it fits with -p gradient_checkpointing True"):
        tight = budget.plan(s, data)
    assert not tight.fits and not tight.step
    monkeypatch.setattr(budget, "memory_free", lambda: 1000)
    with pytest.warns(UserWarning, match="weights of tiny alone take"): budget.plan(s, data)
