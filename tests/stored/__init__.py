"""Numbers that were stored before, and what finds them again: `record.py`, `tests/test_numbers.py`.

To be imported before torch. Which kernels run is a matter of the processor, and where two scores are
nearly alike their order is a matter of the kernels. These are the ones that every processor runs
alike: PyTorch's without vector extensions, NumPy's without AVX-512, MKL's compatible branch, which
does not ask who made the processor, and one core type of OpenBLAS. What oneDNN does also depends on
the sizes of the caches, so `record.py` runs without it; the limit below is for all other tests.
"""

import os

KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
os.environ.update(KERNELS)
