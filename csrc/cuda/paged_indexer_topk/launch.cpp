// Scores, then selects, as many requests at a time as the workspace holds, by the kernels of
// paged_mqa_logits and topk_indices. Query tokens that see at most topk keys are never scored.
#include <algorithm>

#include "../ops.h"

namespace dsa::cuda {

void paged_indexer_topk(const PagedIndexerTopkParams& p, const Target& target) {
  const int64_t batch = p.score.q.size[0], next_n = p.score.q.size[1];
  const int64_t request_bytes = 4 * next_n * p.max_seq_len;
  int64_t together = request_bytes == 0 ? batch : p.workspace.size[0] / request_bytes;
  // The selection takes a row's length from a contiguous list of them.
  const View<2>& lens = p.score.seq_lens;
  if (lens.stride[0] != next_n) together = std::min<int64_t>(together, 1);
  for (int64_t first = 0; first < batch; first += together) {
    const int64_t count = std::min(together, batch - first), rows = count * next_n;
    PagedMqaLogitsParams score = p.score;
    score.q = slice(p.score.q, first, count);
    score.weights = slice(p.score.weights, first * next_n, rows);
    score.seq_lens = slice(lens, first, count);
    score.block_table = slice(p.score.block_table, first, count);
    score.fill = false;
    score.out = {p.workspace.data, DType::kFloat32, {rows, p.max_seq_len}, {p.max_seq_len, 1}};
    paged_mqa_logits(score, above(p.topk), target);
    topk_indices({score.out,
                  {},
                  {score.seq_lens.data, DType::kInt32, {rows}, {1}},
                  p.topk,
                  slice(p.out, first * next_n, rows)},
                 target);
  }
}

}  // namespace dsa::cuda
