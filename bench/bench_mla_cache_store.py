"""Times `mla_cache_store`: python -m pytest bench/bench_mla_cache_store.py"""

from bench.common import each_row, run


@each_row("mla_cache_store")
def test_mla_cache_store(benchmark, shape, backend):
    run(benchmark, "mla_cache_store", shape, backend)
