"""Numbers that were stored before, and what finds them again: `record.py`, `tests/test_numbers.py`.

To be imported before torch. Which kernels run is a matter of the processor, and where two scores are
nearly alike their order is a matter of the kernels. The tests run with those of AVX2. Stored numbers
are made, in a process of their own, by those that every processor runs alike: PyTorch's without
vector extensions, MKL's branch that does not ask who made the processor, one core type of OpenBLAS,
NumPy's without AVX-512; and without oneDNN, whose blocks follow the sizes of the caches.
"""

import os
import sys

USUAL = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
KERNELS = PORTABLE if "tests.stored.record" in sys.orig_argv else USUAL
os.environ.update(KERNELS)
