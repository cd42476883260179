"""Several ranks against one process: guidance-parallel and sequence-parallel with gloo on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import datetime, os
import torch, torch.distributed as dist
from lyra_core.generate.lyra2.parallel import STOP, Worker, send, shared_velocity
from chunks import PACKING, chunk
from tiny import tiny_network
from lyra_core.generate.lyra2.components import guided_velocity
from lyra_core.generate.lyra2.samplers import chunk_noise, sample_unipc

torch.set_num_threads(1)
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world, timeout=datetime.timedelta(seconds=60))
device = torch.device("cpu")
for guidance in (5.0, 1.0):
    worker = Worker(tiny_network(packing=PACKING), device, guidance=guidance != 1)
    with torch.no_grad():
        if rank:
            worker.serve()
            continue
        inputs, texts, image = chunk()
        texts = texts[: 1 if guidance == 1 else 2]
        noise = chunk_noise(0, (16, 2, 4, 6))
        shared = sample_unipc(shared_velocity(worker, inputs, texts, image, guidance=guidance), noise, steps=3)
        send(STOP, [], device)
        alone = guided_velocity(tiny_network(packing=PACKING), inputs, texts, image, guidance=guidance)
        plain = sample_unipc(alone, noise, steps=3)
        print(worker.team.passes, worker.team.size, float((shared - plain).abs().max()), float(plain.abs().max()))
dist.destroy_process_group()
"""


@pytest.mark.parametrize(("world", "teams"), [
    (2, [(2, 1), (1, 2)]),
    pytest.param(3, [(1, 3), (1, 3)], marks=pytest.mark.slow),
    pytest.param(4, [(2, 2), (1, 4)], marks=pytest.mark.slow),
])
def test_ranks_together_are_one_process(tmp_path, world, teams):
    """With guidance, then without; ``teams`` says in how many passes at once and over how many ranks each."""
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT.format(root=str(ROOT), here=str(Path(__file__).parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(world), str(tmp_path / "store")], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=environment)
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=240) for process in ranks]
    assert all(process.returncode == 0 for process in ranks), outputs[0][1][-2000:] + outputs[-1][1][-2000:]
    rows = [line.split() for line in outputs[0][0].splitlines()]
    assert [(int(row[0]), int(row[1])) for row in rows] == teams
    assert all(float(row[2]) <= 1e-5 < float(row[3]) for row in rows), rows
