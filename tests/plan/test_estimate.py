"""The estimated time of a step, and the bandwidth of a network of chips."""

import pytest

from harvest_jax.plan import hlo
from harvest_jax.plan.chips import CHIPS, received_per_second
from harvest_jax.plan.collectives import Collective
from harvest_jax.plan.estimate import estimate, longest_kernels
from harvest_jax.plan.program_cost import Kernel, ProgramCost
from harvest_jax.plan.resources import DeviceMemory, StepResources
from harvest_jax.plan.topology import parse_topology


def plan_of(flops=0.0, moved=0.0, collectives=()):
    return StepResources(DeviceMemory(0, 0, 0, 0, 0, 0), ProgramCost(flops, 2 * flops, moved), tuple(collectives))


def test_an_estimate_is_the_slowest_resource():
    slice_ = parse_topology("v5e:16x16")
    times = estimate(plan_of(flops=197e12, moved=819e9), slice_, batch_size=100)
    assert (times.compute_ms, times.memory_ms, times.network_ms) == (2000, 1000, 0)  # at higher precision: twice
    assert (times.step_ms, times.bound_by, times.clips_per_s) == (2000, "compute", 50)
    gpus = estimate(plan_of(flops=989e12, moved=2 * 4800e9), parse_topology("h200:8"), batch_size=10, slower=1.5)
    assert (gpus.compute_ms, gpus.step_ms, gpus.bound_by) == (1500, 3000, "memory")
    assert estimate(plan_of(1.0), parse_topology("cpu:2"), 1) is None


@pytest.mark.parametrize(("sent", "bound"), [(0, "compute"), (450 * 10**6, "compute"), (2 * 10**9, "network")])
def test_what_goes_on_meanwhile_takes_no_time_of_its_own(sent, bound):
    """Kernels take 2 ms of arithmetic and 1 ms of memory traffic, one after another; a copy and the network do not."""
    flops = Kernel("a", 1, 2e-3 * 989e12, 2e-3 * 989e12, 0.0)
    memory, copy = (Kernel("b", 1, 0.0, 0.0, 1e-3 * 4800e9, meanwhile) for meanwhile in (False, True))
    cost = ProgramCost(flops.flops, flops.bf16_flops, memory.bytes + copy.bytes - 1, (flops, memory, copy))
    array = hlo.Array("u8", (sent,))
    gather = Collective("collective-permute", 1, 8, (array,), "")
    plan = StepResources(DeviceMemory(0, 0, 0, 0, 0, 0), cost, (gather,))
    times = estimate(plan, parse_topology("h200:8"), 1)
    assert times.kernels_ms == pytest.approx(3)
    assert times.step_ms == pytest.approx(max(3, sent / 450e9 * 1e3))
    assert times.bound_by == bound
    assert [one["from"] for one in longest_kernels(plan, parse_topology("h200:8"))] == ["a", "b"]


def test_a_torus_is_as_fast_as_its_rings():
    """Two links a dimension: 200 GB/s into a v5e chip in 16 x 16, half of it in 8 x 8, whose ends are not joined."""
    v5e, v5p, h200 = CHIPS["v5e"], CHIPS["v5p"], CHIPS["h200"]
    assert received_per_second(v5e, (16, 16)) == 200e9
    assert received_per_second(v5e, (8, 8)) == 100e9
    assert received_per_second(v5e, (8, 16)) == 150e9
    assert received_per_second(v5e, (1, 8)) == 50e9
    assert received_per_second(v5p, (4, 4, 4)) == 600e9
    assert (received_per_second(h200, (8,)), received_per_second(h200, (16,))) == (450e9, 50e9)
