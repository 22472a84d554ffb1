//! labrun: a reproducible experiment lab for vLLM + LMCache.
