"""What the bits of a result depend on besides code and inputs: instruction sets and threads."""

import os
import sys

# Instructions that each x86-64 processor of the last decade has, for torch, MKL and oneDNN.
STRICT = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def use_instructions(*, strict: bool) -> None:
    """In strict mode, restart this command with instructions that give the same bits everywhere.

    torch reads them when it is imported, which may have happened.
    """
    if strict and not os.environ.items() >= STRICT.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | STRICT)


def use_one_thread() -> None:
    """Restrict torch to one thread, so that results do not depend on the number of cores."""
    import torch  # noqa: PLC0415 (use_instructions must come before torch is loaded)

    torch.set_num_threads(1)
