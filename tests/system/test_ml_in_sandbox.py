"""Safe must not mean crippled: numpy and torch do their everyday work inside the profile python-ml.

Each piece is one job, processes (which python-ml allows) among them.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from crank.domain.outcome import Outcome, Reason
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.profiles import project_store

pytestmark = [
    pytest.mark.system,
    pytest.mark.profile_ml,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("ml-sandbox"),
]

WORKS = {
    "autograd agrees with the derivative": """
import torch
x = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
(x.sin() * x.exp()).sum().backward()
bool(torch.allclose(x.grad, x.exp().mul(x.sin() + x.cos()).detach()))
""",
    "torch's linear algebra": """
import torch
torch.manual_seed(1)
a = torch.randn(60, 60, dtype=torch.float64)
q, r = torch.linalg.qr(a)
u, s, v = torch.linalg.svd(a)
b = torch.randn(60, dtype=torch.float64)
spd = a @ a.T + torch.eye(60, dtype=torch.float64)
values, vectors = torch.linalg.eigh(spd)
close = torch.allclose
all([close(q @ r, a), close(u @ torch.diag(s) @ v, a), close(a @ torch.linalg.solve(a, b), b, atol=1e-8),
     close(torch.linalg.cholesky(spd) @ torch.linalg.cholesky(spd).T, spd), close(vectors @ torch.diag(values) @ vectors.T, spd)])
""",
    "a small network learns, and is saved and loaded": """
import torch
torch.manual_seed(0)
points = torch.rand(256, 2) * 2 - 1
labels = (points.prod(1) > 0).float().unsqueeze(1)
net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
for _ in range(300):
    optimiser.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(net(points), labels).backward()
    optimiser.step()
torch.save(net.state_dict(), "/scratch/net.pt")
again = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
again.load_state_dict(torch.load("/scratch/net.pt", weights_only=True))
float(((again(points) > 0).float() == labels).float().mean()) > 0.95
""",
    "convolution, attention, embedding, recurrence": """
import torch
from torch import nn
x = torch.randn(2, 3, 16, 16)
shapes = [tuple(nn.Conv2d(3, 8, 3, padding=1)(x).shape), tuple(nn.MultiheadAttention(16, 4, batch_first=True)(*[torch.randn(2, 5, 16)] * 3)[0].shape),
          tuple(nn.Embedding(10, 4)(torch.tensor([[1, 2], [3, 4]])).shape), tuple(nn.LSTM(4, 6, batch_first=True)(torch.randn(2, 3, 4))[0].shape)]
shapes == [(2, 8, 16, 16), (2, 5, 16), (2, 2, 4), (2, 3, 6)]
""",
    "a DataLoader without workers": """
import torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.arange(100)), batch_size=7, shuffle=True)
sorted(int(n) for batch, in loader for n in batch) == list(range(100))
""",
    "torch's own threads": """
import torch
torch.set_num_threads(2)
big = torch.randn(700, 700)
bool(torch.isfinite(big @ big).all()) and torch.get_num_threads() == 2
""",
    "numpy's linear algebra, transforms and chance": """
import numpy as np
chance = np.random.default_rng(7)
a = chance.standard_normal((80, 80))
u, s, v = np.linalg.svd(a)
signal = chance.standard_normal(1024)
all([np.allclose(u @ np.diag(s) @ v, a), np.allclose(np.linalg.inv(a) @ a, np.eye(80)), np.allclose(np.fft.ifft(np.fft.fft(signal)).real, signal),
     np.allclose(np.polyfit([0, 1, 2], [1, 3, 7], 2), [1, 1, 1]), abs(chance.normal(size=100_000).mean()) < 0.02])
""",
    "numpy's files and memory maps": """
import numpy as np
table = np.memmap("/scratch/table", dtype="f8", mode="w+", shape=(1000, 10))
table[:] = np.arange(10)
table.flush()
np.savez_compressed("/scratch/all.npz", table=table, words=np.array(["a", "ü"]))
kept = np.load("/scratch/all.npz")
float(np.memmap("/scratch/table", dtype="f8", mode="r").sum()) == 45_000.0 and list(kept["words"]) == ["a", "ü"]
""",
    "numpy in threads": """
import numpy as np
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    traces = list(pool.map(lambda n: float(np.trace(np.full((300, 300), n) @ np.eye(300))), range(8)))
traces == [300.0 * n for n in range(8)]
""",
}

# These fork, which python-ml allows.
FORKS = {
    "a pool of processes": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    squares = pool.map(abs, range(-50, 0))
squares == list(range(50, 0, -1))
""",
    "a DataLoader whose workers give arrays": """
import numpy, torch
from torch.utils.data import DataLoader
def stack(items):
    return numpy.stack(items)
loader = DataLoader([numpy.full(4, n) for n in range(100)], batch_size=10, num_workers=2, collate_fn=stack)
sorted(int(row[0]) for batch in loader for row in torch.from_numpy(numpy.concatenate([batch]))) == list(range(100))
""",
}

# Its workers hand tensors over as descriptors through a Unix socket, which a job may not make.
SENDS_TENSORS = """
import torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.arange(100)), batch_size=10, num_workers=2)
sorted(int(n) for batch, in loader for n in batch) == list(range(100))
"""


@pytest.fixture(scope="module")
def ml(builds: Path) -> ProfileBuild:
    """Give the profile python-ml, in the variant that is built here."""
    found = (project_store(builds).find("python-ml", variant) for variant in ("cpu", "gpu"))
    build = next(filter(None, found), None)
    if build is None:
        pytest.skip("python-ml is not built here: make profiles")
    return build


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner() -> AsyncIterator[NamespaceRunner]:
    """Give one runner to all jobs; each still runs in a sandbox of its own."""
    runner = NamespaceRunner()
    await runner.start()
    yield runner
    await runner.stop()


async def run(runner: NamespaceRunner, build: ProfileBuild, code: str) -> Outcome:
    """Run one job under the profile's own limits, a minute at most."""
    session = await runner.open(SandboxSpec(build, replace(build.profile.limits, wall_sec=60.0)))
    try:
        return await session.run_python(code, None, RecordingSink())
    finally:
        await session.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("what", [*WORKS, *FORKS])
async def test_numpy_and_torch_work(runner: NamespaceRunner, ml: ProfileBuild, what: str) -> None:
    """The job ends by itself and says that its own check held."""
    outcome = await run(runner, ml, {**WORKS, **FORKS}[what])
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, True), (outcome.end, outcome.stderr.text[-2000:])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_dataloader_that_sends_tensors_works_or_says_why(runner: NamespaceRunner, ml: ProfileBuild) -> None:
    """Workers that hand over tensors work, or the job fails soon with a sentence of ours."""
    outcome = await run(runner, ml, SENDS_TENSORS)
    if outcome.end.reason is Reason.RAISED:
        assert "closed by design" in outcome.stderr.text, outcome.stderr.text[-2000:]
    else:
        assert (outcome.end.reason, outcome.result) == (Reason.EXITED, True), outcome.end
