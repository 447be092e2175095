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
    uint8_t lane;
    const Block *target, *source;  // source: null if `from` is in no block
  };
  std::vector<Piece> pieces;
  Fill fill = Fill::zero;
  OnLoad on_load = OnLoad::nothing;
  std::optional<Reduction> reduction;
  Type type = Type::none;     // of the reduction
  std::vector<uint8_t> data;  // a source that is in no block
  bool again = false;         // another destination of a multicast has had the same

  // Checks that `bytes` bytes from `from` (0: filled) to `to` may be copied, and adds them. The
  // destination counts as written from now on.
  void add(Warp& w, int lane, uint64_t to, uint64_t from, uint32_t bytes);
  // The destination holds what nobody should see until the copy has landed.
  void poison() const;
  void land() const;
  // The source's bytes, in case they are read some time before they are written.
  std::vector<uint8_t> read() const;
  void land(const std::vector<uint8_t>& bytes) const;
  // Tells race detection, at issue, of the reads and the writes for the operation's lanes.
  // `by_lane`: waiting concerns each lane by itself.
  void note_reads(Warp& w, AsyncOperation op, bool by_lane) const;
  void note_writes(Warp& w, AsyncOperation op, bool by_lane) const;
  // Adds it to the profile, at issue. Only called with Warp::profile.
  void note_bytes(Warp& w) const;

 private:
  void write(const Piece& piece, const uint8_t* from) const;
  // Calls f(piece, its lane) for pieces of the operation's lanes, each with what its lane did.
  template <class F>
  void for_each_piece(AsyncOperation& op, F f) const;
};

// An operation of the instruction that runs, for a lane or more; the agent and time come later.
AsyncOperation operation_of(Warp& w, Mask lanes);

// The transfer lands later and reports to an mbarrier.
void issue_to_barrier(Warp& w, int lane, const char* what, std::shared_ptr<Transfer> transfer,
                      uint64_t barrier, uint32_t bytes, Proxy proxy = Proxy::async);

void encode_bulk(Encoding& e);         // cp.async.bulk...
void encode_reduce_bulk(Encoding& e);  // cp.reduce.async.bulk...

}  // namespace ptx
