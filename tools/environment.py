"""What the bits of a run may depend on: the machine of the record, and this one."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isoparam.network import bits
from pipeline import commands

ENVIRONMENT = Path("record/environment.json")
PACKAGES = ("torch", "numpy", "scipy", "pandas", "safetensors", "scikit-learn", "matplotlib", "dvc")


def environment() -> dict[str, Any]:
    """The properties of this machine on which the bits of a run may depend."""
    import torch

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
        **processor(),
        "cores": commands.available_cores(),
        "instructions of torch": torch.backends.cpu.get_cpu_capability(),
        "oneDNN": torch.backends.mkldnn.is_available(),
        "MKL": torch.backends.mkl.is_available(),
        "settings": {n: os.environ[n] for n in sorted(bits.STRICT) if n in os.environ},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> dict[str, Any]:
    """Vendor, model and instruction sets; None where Linux does not report them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    name = fields.get("model name") or platform.processor() or None
    if name and "cpu family" in fields:  # two generations may have one name
        name += f", family {fields['cpu family']}, model {fields['model']}"
    return {
        "vendor": fields.get("vendor_id"),
        "processor": name,
        "flags": sorted(fields.get("flags", "").split()),
    }


def differences(recorded: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The differences from the recorded machine on which bits may depend."""
    packages = ("torch", "numpy", "scipy", "pandas", "safetensors")
    pairs = {p: (here["packages"].get(p), recorded["packages"].get(p)) for p in packages}
    for key in ("machine", "vendor", "processor", "instructions of torch", "oneDNN", "MKL"):
        pairs[key] = here[key], recorded[key]
    pairs["settings"] = here["settings"] or None, recorded["settings"] or None
    return [f"{key} is {a} here, {b} in the record" for key, (a, b) in pairs.items() if a != b]
