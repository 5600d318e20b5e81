"""A plan as a page of text, and the message for a step that does not fit."""

from typing import Any

from harvest_jax.bench.memory_advice import memory_advice
from harvest_jax.config.run import RunConfig
from harvest_jax.plan.chips import GIB

SHOWN = 12  # kinds of kernels; --json has more


def plan_text(found: dict[str, Any]) -> str:
    """The JSON object of `harvest plan` as a page of text."""
    slices = f"{found['slices']} slices; " if found["slices"] > 1 else ""
    out = [
        f"{found['model']}, {found['tokens']} video tokens, {found['dtype']}, batch {found['batch']} on "
        f"{found['devices']} x {found['chip']} ({slices}data {found['mesh']['data']} x fsdp {found['mesh']['fsdp']}), "
        f"{found['method']}",
    ]
    if found["method"] == "analytic":
        out.append("the step is modelled; with JAX's CUDA plugin (harvest_jax[gpu]) it is compiled, which needs no GPU")
    out += _stage(found, found)
    if "all_patches" in found:
        out += ["", "the last stage, with all patches:", *_stage(found["all_patches"], found)]
    if "largest_batch" in found:
        search = found["largest_batch"]
        tried = ", ".join(f"{size}{'' if fits else ' not'}" for size, fits in search["tried"].items())
        out += ["", f"largest batch that fits: {search['batch']} ({search['how']}; tried: {tried})"]
    return "\n".join(out)


def _stage(stage: dict[str, Any], found: dict[str, Any]) -> list[str]:
    out = []
    limit = f" of {_gib(found['usable_bytes'])} usable" if found["usable_bytes"] else ""
    verdict = {True: ": fits", False: ": DOES NOT FIT", None: ""}[stage["fits"]]
    out.append(f"memory a device  {_gib(stage['per_device_bytes'])}{limit}{verdict}")
    if stage["memory"] is None:
        return out
    memory = stage["memory"]
    names = ("arguments", "temporaries", "outputs", "aliased", "code")
    out.append("                 " + ", ".join(f"{name} {_gib(memory[name])}" for name in names))
    out.append(f"arithmetic       {stage['flops'] / 1e12:.3f} TFLOP in products of matrices, a device and step")
    out.append(f"memory traffic   {stage['bytes_accessed'] / 1e9:.2f} GB, a device and step")
    within = [one for one in stage["collectives"] if not one["between_slices"]]
    out.append("collectives      " + ("" if within else "none"))
    for one in within:
        out.append(
            f"  {one['count']:>4} x {one['kind']:<19}{one['bytes'] / 1e6:>10.3f} MB  {one['arrays']:>3} arrays, "
            f"largest {one['largest']}, groups of {one['group']}; {one['from']}"
        )
    if stage["between_slices_bytes"]:
        kinds = stage["between_slices_bytes"].items()
        sizes = (f"{one['received_bytes'] / 1e6:.3f} MB in {one['count']} x {kind}" for kind, one in kinds)
        out.append("between slices   " + ", ".join(sizes) + ", received by a device in a step")
    if stage["estimate"]:
        times = stage["estimate"]
        resources = [*(["kernels"] if stage["kernels"] else []), "compute", "memory", "network"]
        resources += ["between"] if stage["between_slices_bytes"] else []
        named = {"between": "between slices"}
        parts = ", ".join(f"{named.get(name, name)} {times[f'{name}_ms']:.1f}" for name in resources)
        out.append(
            f"estimated step   {times['step_ms']:.1f} ms, {times['clips_per_s']:.0f} clips/s, bound by "
            f"{times['bound_by']} ({parts} ms)"
        )
        for one in stage["kernels"][:SHOWN]:
            bound = "compute" if one["compute_ms"] >= one["memory_ms"] else "memory"
            out.append(f"  {one['ms']:>9.2f} ms  {one['count']:>4} x {one['from'][-80:]}, {bound}")
        out.append(f"                 assumes: {times['assumes']}; {_calibrated(found)}")
    elif found["usable_bytes"]:
        out.append("estimated step   under a millisecond, too short to estimate: plan a larger batch or model")
    return out


def _calibrated(found: dict[str, Any]) -> str:
    calibration = found["calibration"]
    if isinstance(calibration, str):
        return calibration
    return (
        f"times x {calibration['time']:.2f} and memory x {calibration['memory']:.2f} as measured in "
        f"{calibration['source']}"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def too_large(checked: RunConfig, found: dict[str, Any]) -> str:
    """By how much it does not fit, and what to change."""
    stages = [found, *([found["all_patches"]] if "all_patches" in found else [])]
    used, limit = max(stage["per_device_bytes"] for stage in stages), found["usable_bytes"]
    size = f"{used / GIB:.2f} GiB of {limit / GIB:.2f} GiB a device, {(used - limit) / GIB:.2f} GiB too much"
    smaller = "a smaller train.batch_size (--search finds the largest)"
    first_fits = found["memory"] is not None and found["per_device_bytes"] <= limit
    ways = [smaller, *memory_advice(checked, found["devices"], all_patches=first_fits)]
    reason = size if used else "the compiler ran out of memory"
    return f"does not fit {found['topology']}: {reason}: try {' or '.join(ways)}"
