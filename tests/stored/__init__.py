"""Numbers that were stored before, and what finds them again: `record.py`, `tests/test_numbers.py`.

To be imported before torch. Which kernels run is a matter of the processor, and where two scores are
nearly alike their order is a matter of the kernels. With those of AVX2 most processors give the same
matrices; what still differs, such as blocks that follow the sizes of caches, is theirs, so
`processor.json` says on which one the numbers were made.
"""

import os

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
os.environ.update(KERNELS)
