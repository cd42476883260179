"""Distillation: the gradient against closed forms, a mixture that four steps then meet, and a tiny video model end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from clip_of_a_wall import walls  # noqa: E402
from test_trainer import PACKING, PLAIN, tiny  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.lora import merge_loras  # noqa: E402
from lyra_core.generate.lyra2.packing import Packing  # noqa: E402
from lyra_core.generate.lyra2.samplers import distilled_schedule  # noqa: E402
from lyra_core.training.distill import CRITIC, STUDENT, DistillCfg, Distiller, MatchingCfg, load_distill_config  # noqa: E402
from lyra_core.training.distill_loss import (  # noqa: E402
    clean_of,
    comparison_sigma,
    critic_loss,
    levels,
    matching_gradient,
    matching_loss,
    renoised,
    simulated,
)
from lyra_core.training.network import build_network  # noqa: E402
from lyra_core.training.sampling import Sampler, torch_generator  # noqa: E402
from lyra_core.training.step import TrainingNetwork, learnable, velocity_of  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs/train"
SCHEDULE = [float(s) for s in distilled_schedule()]
torch.set_num_threads(1)


def gaussian(mean, spread):
    """Return the exact velocity of a normal distribution."""
    def velocity(state, timesteps):
        sigma = levels(state, timesteps / 1000)
        variance = (1 - sigma) ** 2 * spread**2 + sigma**2
        clean = mean + (1 - sigma) * spread**2 / variance * (state - (1 - sigma) * mean)
        return (state - clean) / sigma

    return velocity


CENTRES = torch.tensor([[1.5, 0.0], [-1.5, 0.8], [0.0, -1.6]])
SPREAD = 0.15


def mixture(state, timesteps):
    """Return the exact velocity of three normal distributions of equal weight in the plane."""
    sigma = levels(state, timesteps / 1000)
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    offset = state[:, None] - (1 - sigma)[:, None] * CENTRES
    weight = torch.softmax(-0.5 * offset.square().sum(-1) / variance, 1)
    clean = CENTRES + ((1 - sigma) * SPREAD**2 / variance)[:, None] * offset
    return (state - (weight[..., None] * clean).sum(1)) / sigma


def test_gradient_of_two_normal_distributions():
    """With the same spread, the difference of the denoisers is that of the means, scaled; it moves towards the teacher."""
    torch.manual_seed(0)
    clean, noise, sigma = 2 + 0.5 * torch.randn(400, 3), torch.randn(400, 3), torch.full((400,), 0.6)
    gradient = matching_gradient(clean, noise, sigma, gaussian(0.0, 0.5), gaussian(2.0, 0.5))
    state = renoised(clean, noise, sigma)
    real, fake = clean_of(gaussian(0.0, 0.5), state, sigma), clean_of(gaussian(2.0, 0.5), state, sigma)
    shrink = 1 - 0.4**2 * 0.25 / (0.4**2 * 0.25 + 0.36)
    torch.testing.assert_close(fake - real, torch.full_like(real, 2 * shrink), atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, (fake - real) / (clean - real).abs().mean(1, keepdim=True), atol=1e-5, rtol=0)
    assert (gradient > 0).all(), "descending it goes from 2 towards 0"
    same = matching_gradient(clean, noise, sigma, gaussian(2.0, 0.5), gaussian(2.0, 0.5))
    assert same.abs().max() == 0, "nothing is left to do when the critic sees what the teacher sees"


def test_loss_has_the_gradient_it_is_given():
    clean, wanted = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2)
    (got,) = torch.autograd.grad(matching_loss(clean, wanted), clean)
    torch.testing.assert_close(got, wanted / wanted.numel())


def test_simulation_is_the_samplers_own_run():
    from lyra_core.generate.lyra2.samplers import sample_distilled

    torch.manual_seed(0)
    noise, *fresh = torch.randn(4, 6, 2)
    velocity = mixture
    got = simulated(velocity, noise, fresh, SCHEDULE, 3)
    wanted = sample_distilled(lambda state, t: velocity(state, torch.full((6,), t)), noise, list(fresh))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


class Mlp(torch.nn.Module):
    """A small velocity field in the plane."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(9, 96), torch.nn.SiLU(), torch.nn.Linear(96, 96), torch.nn.SiLU(), torch.nn.Linear(96, 2)
        )

    def forward(self, state, timesteps):
        t = timesteps[:, None] / 1000
        waves = [f(k * np.pi * t) for k in (0.5, 1, 2) for f in (torch.sin, torch.cos)]
        return self.net(torch.cat([state, t, *waves], 1))


def energy_distance(a, b):
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_four_steps_meet_a_mixture_after_distillation():
    torch.manual_seed(0)
    student, critic = Mlp(), Mlp()
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(600):
        sigma = comparison_sigma(torch.rand(256), shift=5.0)
        data = CENTRES[torch.randint(3, (256,))] + SPREAD * torch.randn(256, 2)
        noise = torch.randn(256, 2)
        loss = critic_loss(student, data, noise, sigma)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    critic.load_state_dict(student.state_dict())
    truth = CENTRES[torch.randint(3, (2000,))] + SPREAD * torch.randn(2000, 2)

    @torch.no_grad()
    def distance():
        draw = torch.Generator().manual_seed(1)
        noise, *fresh = torch.randn(4, 2000, 2, generator=draw)
        return energy_distance(simulated(student, noise, fresh, SCHEDULE, 3), truth)

    before = distance()
    optimizers = torch.optim.Adam(student.parameters(), 3e-4), torch.optim.Adam(critic.parameters(), 1e-3)
    for step in range(1000):
        noise, *fresh = torch.randn(4, 256, 2)
        last = int(torch.randint(4, (1,)))
        turn = step % 5 == 0
        with torch.enable_grad() if turn else torch.no_grad():
            clean = simulated(student, noise, fresh, SCHEDULE, last)
        if turn:
            sigma = comparison_sigma(torch.rand(256), shift=5.0)
            gradient = matching_gradient(clean.detach(), torch.randn_like(clean), sigma, mixture, critic)
            optimizers[0].zero_grad()
            matching_loss(clean, gradient).backward()
            optimizers[0].step()
        optimizers[1].zero_grad()
        critic_loss(critic, clean, torch.randn_like(clean), comparison_sigma(torch.rand(256), shift=5.0)).backward()
        optimizers[1].step()
    after = distance()
    assert after < 0.5 * before, f"energy distance of four steps: {before:.4f} before, {after:.4f} after"


def distiller(output: Path, **matching) -> Distiller:
    cfg = tiny(output, history=PLAIN, iterations=4, save_every=2)
    sampler = Sampler(walls(1, 17), Packing.parse(PACKING), cfg.history, seed=cfg.seed, pool=1)
    network = build_network(cfg.network, seed=0)
    torch.manual_seed(1)
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    settings = {"rank": 4, "critic_steps": 2, "student_rate": 1e-3, "critic_rate": 1e-3, "guidance": 2.0, **matching}
    return Distiller(DistillCfg(train=cfg, matching=MatchingCfg(**settings)), sampler=sampler, network=network)


def test_a_tiny_video_model_distils_and_resumes(tmp_path):
    whole = distiller(tmp_path / "a")
    frozen = {name: p.detach().clone() for name, p in whole.network.named_parameters() if "lora_" not in name}
    begun = {role: [p.detach().clone() for p in whole.weights(role).values()] for role in (STUDENT, CRITIC)}
    whole.run()
    assert [("student" in entry) for entry in whole.log] == [True, False, True, False]
    assert all(np.isfinite(entry["critic"]) for entry in whole.log)
    assert all(torch.equal(p, frozen[name]) for name, p in whole.network.named_parameters() if name in frozen), "the teacher stays"
    for role in (STUDENT, CRITIC):
        assert any(not torch.equal(a, b) for a, b in zip(begun[role], whole.weights(role).values(), strict=True))

    part = distiller(tmp_path / "b")
    part._open(False)
    for step in range(2):
        part.train_step([part.sampler.sample(step, place) for place in range(2)])
    part.save()
    again = distiller(tmp_path / "b")
    again.run(resume=True)
    assert [entry["critic"] for entry in again.log] == [entry["critic"] for entry in whole.log[2:]]
    with pytest.raises(ConfigError, match="other settings"):
        distiller(tmp_path / "b", rank=2).run(resume=True)
    with pytest.raises(ConfigError, match="--resume"):
        distiller(tmp_path / "b").run()


def test_the_written_lora_makes_the_teacher_the_student(tmp_path):
    run = distiller(tmp_path / "run")
    run.run()
    samples = [run.sampler.sample(0, place) for place in range(2)]
    with torch.no_grad(), run.acting(STUDENT):
        batch = learnable(run.module, samples, run.parts, [torch_generator(s.seed) for s in samples])
        state, time = torch.randn_like(batch.targets), torch.tensor([900.0, 500.0])
        student = velocity_of(run.module, batch, state, time)
    teacher = distiller(tmp_path / "other").network
    with torch.no_grad():
        plain = build_network(run.cfg.train.network, seed=0)
        own = {name.replace(".base_layer", ""): p for name, p in teacher.state_dict().items() if "lora_" not in name}
        plain.load_state_dict(own)
        before = velocity_of(TrainingNetwork(plain), batch, state, time)
        merge_loras(plain, [(tmp_path / "run/dmd_distillation.safetensors", 1.0)])
        merged = velocity_of(TrainingNetwork(plain), batch, state, time)
    torch.testing.assert_close(merged, student, atol=1e-5, rtol=1e-4)
    assert (before - student).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("lyra2_distill*.yaml")))
def test_configurations_are_readable(name):
    cfg = load_distill_config(CONFIGS / name)
    assert cfg.matching.critic_steps == 5 and cfg.train.run.iterations > 0


def test_wrong_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match="matching: rank: got 0"):
        distiller(tmp_path, rank=0)
    with pytest.raises(ConfigError, match="output: got nothing"):
        Distiller(DistillCfg(train=replace(tiny(tmp_path), output="")))
    file = tmp_path / "x.yaml"
    file.write_text("matching:\n  rnak: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'rnak'; nearest is 'rank'"):
        load_distill_config(file)
