"""Numbers that were stored before, and what finds them again: `record.py`, `tests/test_numbers.py`.

To be imported before torch. Which kernels run is a matter of the processor, and where two scores are nearly alike their
order is a matter of the kernels: with those of AVX2 all processors that have it give the same matrices.
"""

import os

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
os.environ.update(KERNELS)
