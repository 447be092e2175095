#include "matrix_moves.h"

#include <cstring>

namespace ptx {

void rows_to_lanes(const uint8_t* const* rows, bool transposed, uint32_t* lanes) {
  for (int l = 0; l < kLanes; ++l) {
    uint16_t halves[2];
    for (int h = 0; h < 2; ++h) {
      const Element element = element_of(l, h, transposed);
      std::memcpy(&halves[h], rows[element.row] + 2 * element.column, 2);
    }
    lanes[l] = halves[0] | uint32_t{halves[1]} << 16;
  }
}

void lanes_to_rows(const uint32_t* lanes, bool transposed, uint8_t (*rows)[16]) {
  for (int l = 0; l < kLanes; ++l)
    for (int h = 0; h < 2; ++h) {
      const Element element = element_of(l, h, transposed);
      const uint16_t value = static_cast<uint16_t>(lanes[l] >> (16 * h));
      std::memcpy(rows[element.row] + 2 * element.column, &value, 2);
    }
}

}  // namespace ptx
