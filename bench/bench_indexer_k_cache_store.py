"""Times `indexer_k_cache_store`: python -m pytest bench/bench_indexer_k_cache_store.py"""

from bench.common import each_row, run


@each_row("indexer_k_cache_store")
def test_indexer_k_cache_store(benchmark, shape, backend):
    run(benchmark, "indexer_k_cache_store", shape, backend)
