// Copies that happen later: what all of them do when they are issued and when they land.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engines.h"
#include "reduction.h"
#include "tensor_map.h"

namespace ptx {

struct Transfer {
  struct Piece {
    uint8_t* to;
    const uint8_t* from;  // null: filled
    uint32_t bytes;
  };
  std::vector<Piece> pieces;
  Fill fill = Fill::zero;
  OnLoad on_load = OnLoad::nothing;
  std::optional<Reduction> reduction;
  Type type = Type::none;  // of the reduction

  // Checks that `bytes` bytes from `from` (0: filled) to `to` may be copied, and adds them. The
  // destination counts as written from now on.
  void add(Warp& w, int lane, uint64_t to, uint64_t from, uint32_t bytes);
  // The destination holds what nobody should see until the copy has landed.
  void poison() const;
  void land() const;
  // The source's bytes, in case they are read some time before they are written.
  std::vector<uint8_t> read() const;
  void land(const std::vector<uint8_t>& bytes) const;

 private:
  void write(const Piece& piece, const uint8_t* from) const;
};

void encode_bulk(Encoding& e);         // cp.async.bulk...
void encode_reduce_bulk(Encoding& e);  // cp.reduce.async.bulk...

}  // namespace ptx
