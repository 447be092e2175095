// Families that are not here yet.
#include "barriers.h"
#include "encoding.h"
#include "races.h"

namespace ptx {

void add_atomic_opcodes(Opcodes&) {}
void add_warp_opcodes(Opcodes&) {}
void add_barrier_opcodes(Opcodes&) {}

const Program& program_of(const Warp& w) {
  return w.machine->program;
}
void lanes_exited(Warp&, Mask) {}
void check_races(Warp&, const Block&, const Access&, const Manner&) {}

}  // namespace ptx
