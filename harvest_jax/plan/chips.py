"""Public figures of accelerators; one device is a whole TPU chip or a whole GPU.

Sources, read November 2026: the pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" of docs.cloud.google.com/tpu/docs
(peak bf16 arithmetic, memory and its bandwidth, bidirectional interconnect of a chip; v4's interconnect is of "TPU v4:
An Optically Reconfigurable Supercomputer", arXiv 2304.01433, 6 links of 50 GB/s); NVIDIA's data sheets of the A100 80GB
SXM, H100 SXM and H200 SXM (tensor cores without sparsity; NVLink in both directions), and of DGX A100 and DGX H100 for
the network between machines (a 200 or 400 Gb/s port for each GPU). The network between slices of TPUs: the data center
network of a chip (v5p's page, 50 Gb/s), or of a pod over its 256 chips (v5e's and v6e's, 6.4 and 25.6 Tb/s); v4's page
has none.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """The peak figures of one device."""

    name: str
    maker: str  # "tpu" or "gpu"
    flops: float  # bf16 multiply-adds as two, a second
    memory: int  # bytes
    usable: int  # bytes that a program may use: the limit of the TPU compiler, or JAX's default share of a GPU
    bandwidth: float  # bytes a second from and to memory
    link: float  # bytes a second into the device from all neighbours together
    torus: int = 0  # TPU: dimensions of the network of chips
    ring: int = 0  # TPU: smallest number of chips along a dimension whose ends are connected
    machine: int = 0  # GPU: devices of a machine, which `link` connects
    between: float = 0.0  # bytes a second into a device from another machine of GPUs or slice of TPUs; 0: not known


def _gpu(name: str, flops: float, memory: float, bandwidth: float, link: float, between: float) -> Chip:
    # XLA_PYTHON_CLIENT_MEM_FRACTION is 0.75 unless it is set (JAX's page "GPU memory allocation")
    return Chip(name, "gpu", flops, int(memory), int(0.75 * memory), bandwidth, link, machine=8, between=between)


# Usable memory of TPUs: the limit that libtpu 0.0.42 names when a program is too large. (v5p's page says 95 GB.)
CHIPS = {
    "v4": Chip("TPU v4", "tpu", 275e12, 32 * GIB, int(30.75 * GIB), 1200e9, 300e9, torus=3, ring=4),
    "v5e": Chip("TPU v5e", "tpu", 197e12, 16 * GIB, int(15.75 * GIB), 819e9, 200e9, torus=2, ring=16, between=3.125e9),
    "v5p": Chip("TPU v5p", "tpu", 459e12, 96 * GIB, int(95.74 * GIB), 2765e9, 600e9, torus=3, ring=4, between=6.25e9),
    "v6e": Chip("TPU v6e", "tpu", 918e12, 32 * GIB, int(31.25 * GIB), 1638e9, 400e9, torus=2, ring=16, between=12.5e9),
    "a100": _gpu("NVIDIA A100 80GB SXM", 312e12, 80e9, 2039e9, 300e9, 25e9),
    "h100": _gpu("NVIDIA H100 SXM", 989e12, 80e9, 3350e9, 450e9, 50e9),
    "h200": _gpu("NVIDIA H200 SXM", 989e12, 141e9, 4800e9, 450e9, 50e9),
}


def received_per_second(chip: Chip, shape: tuple[int, ...]) -> float:
    """Bytes a second that every device of a topology receives when all send along all dimensions.

    Args:
      chip: the kind of device.
      shape: devices along each dimension of a TPU's torus; one number for GPUs.
    """
    if chip.maker == "gpu":
        return chip.link if shape[0] <= chip.machine else chip.between
    # a chip has two links a dimension; where the ends of a dimension are not connected, one link counts
    each = chip.link / (2 * chip.torus)
    return sum(each * (2 if size >= chip.ring else 1) for size in shape if size > 1) or each
