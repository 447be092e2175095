"""Times `mla_cache_gather`: python -m pytest bench/bench_mla_cache_gather.py"""

from bench.common import each_row, run


@each_row("mla_cache_gather")
def test_mla_cache_gather(benchmark, shape, backend):
    run(benchmark, "mla_cache_gather", shape, backend)
