"""Whether an error says that memory ran out, whichever library raised it."""

from __future__ import annotations

# torch's allocator on a CPU, cuBLAS and CUDA where no OutOfMemoryError is made of it
WORDS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA out of memory")


def ran_out(error: BaseException) -> bool:
    """True for Python's, torch's and CUDA's ways of saying it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(w in str(error) for w in WORDS))
