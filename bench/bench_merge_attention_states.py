"""Times `merge_attention_states`: python -m pytest bench/bench_merge_attention_states.py"""

from bench.common import each_row, run


@each_row("merge_attention_states")
def test_merge_attention_states(benchmark, shape, backend):
    run(benchmark, "merge_attention_states", shape, backend)
