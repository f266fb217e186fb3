"The objective of GRPO and its KL term: by hand, and as the trainer computes it."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vsgrpo.data.dataset import open_dataset
from vsgrpo.engine.models import load_model, load_processor
from vsgrpo.engine.prefix_tree import build_prefix_trees
from vsgrpo.engine.tree_attention import completion_logps
from vsgrpo.evaluation.records import Run
from vsgrpo.training.objective import KL_EXPONENT, group_advantages, grpo_loss
from vsgrpo.training.settings import default_settings
from vsgrpo.training.trainer import make_trainer

# ---- by hand

ONE = torch.ones(1, 1)

def loss(logp, old=0., ref=0., advantage=0., beta=0.):
    "The loss of one answer of one token."
    return grpo_loss(logp*ONE, old*ONE, ref*ONE, torch.tensor([advantage]), ONE, beta).item()

@pytest.mark.parametrize("delta", [-2., -.5, 0., .5, 2.])
def test_the_kl_term_is_the_k3_estimator(delta):
    "β(e^Δ - Δ - 1) with Δ = log π_ref - log π_θ: never negative, and 0 where the two agree."
    assert loss(-1., old=-1., ref=-1. + delta, beta=.5) == pytest.approx(.5*(math.exp(delta) - delta - 1), abs=1e-6)

def test_the_kl_term_draws_the_policy_to_its_reference():
    "The gradient of β(e^Δ - Δ - 1) at log π_θ is β(1 - e^Δ)."
    logps = torch.tensor([[-1., -3.]], requires_grad=True)
    grpo_loss(logps, logps.detach(), torch.tensor([[-2., -2.]]), torch.zeros(1), torch.ones(1, 2), beta=.5).backward()
    expected = [.5*(1 - math.exp(delta))/2 for delta in (-1., 1.)]
    assert logps.grad.tolist() == [pytest.approx(expected)] and logps.grad[0, 0] > 0 > logps.grad[0, 1]

def test_the_exponent_of_the_kl_term_is_held():
    assert loss(-500., old=-500., ref=0., beta=1.) == pytest.approx(math.exp(KL_EXPONENT) - KL_EXPONENT - 1)

@pytest.mark.parametrize("log_ratio, advantage, objective", [(0., 1., 1.), (.5, 1., 1.2), (-.5, 1., math.exp(-.5)),
                                                             (.5, -1., -math.exp(.5)), (-.5, -1., -.8)])
def test_the_ratio_is_clipped_only_where_it_would_gain(log_ratio, advantage, objective):
    assert loss(log_ratio, advantage=advantage) == pytest.approx(-objective)

def test_answers_count_alike_whatever_their_length():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    zero = torch.zeros(2, 3)
    assert grpo_loss(zero, zero, None, torch.tensor([1., -.5]), mask, beta=0.).item() == pytest.approx(-.25)

def test_advantages_are_relative_to_their_group():
    advantages = group_advantages(torch.tensor([[1., 0., 0., 1.], [.5, .5, .5, .5]]))
    assert advantages[0].tolist() == pytest.approx([.866, -.866, -.866, .866], abs=1e-3) and not advantages[1].any()

# ---- as the trainer computes it

@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(3, 1, 2))

def settings(**given):
    return replace(default_settings("smoke", "tiny"),
                   **{"num_generations": 4, "max_new_tokens": 6, "probe_every": 0, **given})

def trainer_of(data, folder, s, record=None):
    return make_trainer(s, load_model(s.model, device="cpu"), load_processor(s.model), data, folder, record)

def first_batch(trainer):
    "A trainer's first batch of rollouts, before any update."
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))

@pytest.fixture
def eight_answers(data, tmp_path):
    "A trainer with two groups of eight answers and a penalty."
    return trainer_of(data, tmp_path/"c", settings(questions_per_step=2, micro_groups=2, beta=.04, num_generations=8))

def test_the_trainer_computes_the_printed_objective(eight_answers):
    "With ratios beyond the clip range and a policy away from its reference; advantages of the other sign are noticed."
    trainer = eight_answers
    torch.manual_seed(0)
    for p in trainer.model.parameters():
        if p.requires_grad: p.data += 0.02*torch.randn_like(p)
    batch = first_batch(trainer)
    mask = batch["completion_mask"]
    answers = [ids[m.bool()].tolist() for ids, m in zip(batch["completion_ids"], mask)]
    prompts = [trainer._prompt(row) for row in trainer._rows]
    trees = build_prefix_trees(prompts, answers, trainer.guard.video_id)
    with torch.no_grad():
        logps = completion_logps(trainer.model, trees)[0]
        with trainer.model.disable_adapter(): ref = completion_logps(trainer.model, trees)[0]
        batch["old_per_token_logps"] = old = logps + 0.3*torch.randn_like(logps)
        theirs = trainer.compute_loss(trainer.model, batch).item()
    rewards = torch.tensor([list(paid) for paid in trainer._logs["rewards"].values()]).sum(0)
    advantages = group_advantages(rewards.view(2, -1)).flatten()
    ratio = ((logps - old).exp() - 1).abs()[mask.bool()]
    assert ratio.max() > .2 and (logps - ref).abs().max() > 1e-3 and advantages.abs().max() > .1
    def ours(advantages): return grpo_loss(logps, old, ref, advantages, mask, 0.04).item()
    assert abs(theirs - ours(advantages)) < 1e-5 and abs(theirs - ours(-advantages)) > 1e-3

def test_the_exponent_is_held_in_training(eight_answers):
    "A policy that makes its own answers impossible keeps a finite loss; one near its reference is not touched."
    trainer, batch = eight_answers, first_batch(eight_answers)
    plain = batch["ref_per_token_logps"].clone()
    near = trainer.compute_loss(trainer.model, batch)
    assert torch.equal(trainer._now["ref_per_token_logps"], plain) and near.isfinite()
    batch["ref_per_token_logps"] = plain + 200                      # e^200 overflows
    far = trainer.compute_loss(trainer.model, batch)
    penalty = .04*(math.exp(KL_EXPONENT) - KL_EXPONENT - 1)
    assert abs(far.item() - near.item() - penalty) < 1 and batch["completion_mask"].any()
    far.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.model.parameters())

def test_the_divergence_is_logged_without_a_penalty(data, tmp_path):
    "beta = 0 trains as if there were no reference, and its KL is that of the same run computed with one."
    metrics = {}
    for beta, track in ((0., True), (0., False), (1e-12, True)):
        run, s = Run(tmp_path/f"run{beta}{track}"), settings(steps=3, lr=1e-2, beta=beta, track_kl=track)
        trainer_of(data, tmp_path/f"c{beta}{track}", s, run).train()
        metrics[beta, track] = run.read_metrics()
    tracked, untracked = metrics[0., True], metrics[0., False]
    assert "kl" not in untracked and tracked.grad_norm.equals(untracked.grad_norm)
    assert np.allclose(tracked.kl, metrics[1e-12, True].kl, atol=1e-6) and tracked.kl.iloc[-1] > 1e-4
