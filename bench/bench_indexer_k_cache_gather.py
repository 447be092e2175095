"""Times `indexer_k_cache_gather`: python -m pytest bench/bench_indexer_k_cache_gather.py"""

from bench.common import each_row, run


@each_row("indexer_k_cache_gather")
def test_indexer_k_cache_gather(benchmark, shape, backend):
    run(benchmark, "indexer_k_cache_gather", shape, backend)
