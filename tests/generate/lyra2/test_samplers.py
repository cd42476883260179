"""Schedules and samplers against the reference's trajectories, with its analytic velocity in place of a network."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from golden import recorded  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.samplers import (  # noqa: E402
    chunk_noise,
    distilled_schedule,
    flow_schedule,
    guided,
    sample_distilled,
    sample_unipc,
)

SHIFTS = {1: 1.0, 7: 3.0}
"""Steps -> shift of the recorded trajectories; 5 for all others."""


@pytest.fixture(scope="module")
def data():
    return recorded("samplers")


def analytic(factor):
    """Return the recording's velocity: cos(1.3 x + 0.7 k) (0.4 + 0.6 t / 1000) a + 0.25 x."""
    k = torch.arange(5.0).view(-1, 1, 1, 1)

    def velocity(x, t):
        return torch.cos(1.3 * x + 0.7 * k) * (0.4 + 0.6 * torch.tensor(t, dtype=torch.float32) / 1000) * factor + 0.25 * x

    return velocity


def close(got, want):
    np.testing.assert_allclose(np.asarray(got), want, atol=3e-5, rtol=0)


def test_every_recorded_trajectory(data):
    counts = sorted(int(m[1]) for key in data if (m := re.fullmatch(r"sigmas_(\d+)", key)))
    assert counts
    for steps in counts:
        shift, states = SHIFTS.get(steps, 5.0), []
        sigmas, timesteps = flow_schedule(steps, shift)
        close(sigmas, data[f"sigmas_{steps}"])
        assert np.array_equal(timesteps, data[f"timesteps_{steps}"])
        start = torch.from_numpy(data["start"])
        final = sample_unipc(
            analytic(1.0), start, steps=steps, shift=shift, on_step=lambda i, x, seen=states: seen.append(x.numpy())
        )
        if f"unipc{steps}_states" in data:
            close(np.stack(states), data[f"unipc{steps}_states"])
        if f"unipc{steps}_final" in data:
            close(final, data[f"unipc{steps}_final"])


def test_guided_loop_from_the_references_noise(data):
    noise = chunk_noise(3, (1, *data["loop_start_noise"].shape))[0]
    assert np.array_equal(noise, data["loop_start_noise"])
    positive, negative, seen = analytic(1.0), analytic(0.5), []

    def velocity(x, t):
        seen.append(t)
        return guided(positive(x, t), negative(x, t), 5.0)

    close(sample_unipc(velocity, noise), data["loop_final"])
    assert seen == data["loop_timesteps"].tolist()


def test_distilled_loop(data):
    history = data["dmd_inputs"].shape[2] - data["dmd_start_noise"].shape[1]
    inputs, times = [], []

    def velocity(x, t):
        inputs.append(x.numpy().copy())
        times.append(t)
        return analytic(1.0)(x, t)

    fresh = list(torch.from_numpy(data["dmd_fresh_noise"])[:, :, history:])
    final = sample_distilled(velocity, torch.from_numpy(data["dmd_start_noise"]), fresh)
    close(np.stack(inputs), data["dmd_inputs"][:, :, history:])
    close(final, data["dmd_final"])
    close(times, data["dmd_timesteps"])
    close(distilled_schedule() * 1000, [1000, 937.5, 2500 / 3, 625])


def test_noise_is_one_stream_per_seed():
    one, four = chunk_noise(7, (1, 3, 2)), chunk_noise(7, (4, 3, 2))
    assert torch.equal(one[0], four[0]) and not torch.equal(chunk_noise(8, (1, 3, 2)), one)
    assert torch.equal(chunk_noise(2**40 + 7, (1, 3, 2)), one), "seeds beyond 32 bit wrap, as numpy's generator needs them"


def test_a_straight_flow_is_exact():
    """If the velocity is constant, noise - clean, any number of steps ends at clean."""
    clean, noise = torch.full((2, 1, 3, 3), 0.7), chunk_noise(0, (2, 1, 3, 3))
    scale = float(flow_schedule(5, 5.0)[0][0])
    start = scale * noise + (1 - scale) * clean
    torch.testing.assert_close(sample_unipc(lambda x, t: noise - clean, start, steps=5), clean, atol=1e-5, rtol=0)


def test_bad_counts_are_named():
    with pytest.raises(ConfigError, match="steps: got 0"):
        flow_schedule(0, 5.0)
    with pytest.raises(ConfigError, match="fresh: got 1"):
        sample_distilled(lambda x, t: x, torch.zeros(1, 1, 1, 1), [torch.zeros(1, 1, 1, 1)])
