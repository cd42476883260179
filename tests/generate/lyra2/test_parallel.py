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
import datetime
import torch, torch.distributed as dist
from chunks import PACKING, chunk, noise
from tiny import tiny_network
from lyra_core.generate.lyra2 import speed
from lyra_core.generate.lyra2.components import guided_velocity
from lyra_core.generate.lyra2.parallel import STOP, Worker, send, shared_velocity
from lyra_core.generate.lyra2.samplers import sample_unipc

rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world, timeout=datetime.timedelta(seconds=60))
device = torch.device("cpu")
for guidance, names in ((5.0, set()), (1.0, set()), (5.0, {{"cache", "skip_guidance"}}), (1.0, {{"cache"}})):
    steps = 12 if names else 3
    worker = Worker(tiny_network(packing=PACKING), device, guidance=guidance != 1, names=names)
    if worker.cache is not None:
        worker.cache.threshold = 0.05
    with torch.no_grad():
        if rank:
            worker.serve()
            continue
        inputs, texts, image = chunk()
        texts = texts[: 1 if guidance == 1 else 2]
        # A second chunk, so that nothing of the first is left over.
        for _ in range(2):
            shared = sample_unipc(shared_velocity(worker, inputs, texts, image, guidance=guidance), noise(), steps=steps)
        send(STOP, [], device)
        network, on_pass, skipped = tiny_network(packing=PACKING), None, 0
        if "cache" in names:
            cache = speed.FirstBlockCache(network, threshold=0.05)
            on_pass = cache.use
        skip = speed.SKIP_BELOW if "skip_guidance" in names else 0.0
        alone = guided_velocity(network, inputs, texts, image, guidance=guidance, skip=skip, on_pass=on_pass)
        plain = sample_unipc(alone, noise(), steps=steps)
        skipped = 0 if worker.cache is None else cache.skipped
        print(worker.team.passes, worker.team.size, float((shared - plain).abs().max()), float(plain.abs().max()), skipped)
dist.destroy_process_group()
"""


@pytest.mark.parametrize(("world", "teams"), [
    (2, [(2, 1), (1, 2)]), pytest.param(3, [(1, 3), (1, 3)], marks=pytest.mark.slow),
    pytest.param(4, [(2, 2), (1, 4)], marks=pytest.mark.slow),
])
def test_ranks_together_are_one_process(tmp_path, world, teams):
    """With guidance, then without, exact and with approximations; ``teams``: passes at once and ranks per pass."""
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
    assert [(int(row[0]), int(row[1])) for row in rows] == [*teams, *teams]
    assert all(float(row[2]) <= 1e-5 < float(row[3]) for row in rows), rows
    assert all(int(row[4]) > 0 for row in rows[2:]), "the cache skipped something"
