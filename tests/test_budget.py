"What a run costs: memory from shapes, seconds from a few measured steps."
import pytest

from vsgrpo.data.dataset import open_dataset
from vsgrpo.training import budget, trainer
from vsgrpo.training.settings import default_settings


@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))

def test_a_plan_tells_what_a_run_costs(data, monkeypatch):
    "Memory against what is free, seconds of measured steps, hours of the whole; no step is tried if it will not fit."
    s = default_settings("smoke", "tiny", steps=100, questions_per_step=2, num_generations=4, max_new_tokens=6)
    plan = budget.plan(s, data)
    assert plan.fits and "MiB" in str(plan)
    assert set(plan.step) == {"rollout", "reference", "policy", "step"}
    assert plan.step["step"] > plan.step["rollout"] + plan.step["policy"] > 0
    assert plan.hours["training"] == pytest.approx(plan.step["step"]*100/3600) and plan.hours["testing"] > 0
    monkeypatch.setattr(budget, "memory_free", lambda: plan.memory["total"] - 1)
    monkeypatch.setattr(trainer, "make_trainer", None)
    with pytest.warns(UserWarning, match="will not fit.* it fits with -p gradient_checkpointing True"):
        tight = budget.plan(s, data)
    assert not tight.fits and not tight.step
    monkeypatch.setattr(budget, "memory_free", lambda: 1000)
    with pytest.warns(UserWarning, match="weights of tiny alone take"): budget.plan(s, data)
