// Which lane and register an element of an 8 x 8 matrix of 16 bits goes to: ldmatrix, stmatrix and
// movmatrix.
#pragma once

#include <cstdint>

#include "program.h"

namespace ptx {

// Of register `lane` the low (half 0) or high (half 1) 16 bits.
struct Element {
  int row, column;
};
inline Element element_of(int lane, int half, bool transposed) {
  const int first = lane / 4, second = 2 * (lane % 4) + half;
  return transposed ? Element{second, first} : Element{first, second};
}

// rows[8] of 16 bytes to 32 lanes and back.
void rows_to_lanes(const uint8_t* const* rows, bool transposed, uint32_t* lanes);
void lanes_to_rows(const uint32_t* lanes, bool transposed, uint8_t (*rows)[16]);

}  // namespace ptx
