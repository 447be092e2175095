// Scores, then selects, as many rows at a time as the workspace holds, by the kernels of mqa_logits
// and topk_indices. Rows of at most topk keys are selected whole and never scored.
#include <algorithm>

#include "../ops.h"

namespace dsa::cuda {

void indexer_topk(const IndexerTopkParams& p, const Target& target) {
  const int64_t num_rows = p.score.q.size[0], seq_len = p.score.k.size[0];
  const int64_t together = seq_len == 0 ? num_rows : p.workspace.size[0] / (4 * seq_len);
  for (int64_t first = 0; first < num_rows; first += together) {
    const int64_t count = std::min(together, num_rows - first);
    MqaLogitsParams score = p.score;
    score.q = slice(p.score.q, first, count);
    score.weights = slice(p.score.weights, first, count);
    score.row_start = slice(p.score.row_start, first, count);
    score.row_end = slice(p.score.row_end, first, count);
    score.compressed = score.fill = false;
    score.out = {p.workspace.data, DType::kFloat32, {count, seq_len}, {seq_len, 1}};
    mqa_logits(score, above(p.topk), target);
    topk_indices({score.out, score.row_start, score.row_end, p.topk, slice(p.out, first, count)},
                 target);
  }
}

}  // namespace dsa::cuda
