// The registers of wgmma: who may use them when.
#include <cstring>

#include "engines.h"
#include "wgmma_state.h"

namespace ptx {
namespace {

[[noreturn]] [[gnu::cold]] void register_fault(const Warp& w, Ref ref, const char* what) {
  const std::string name(program_of(w).register_names.at(ref));
  throw Fault(Fault::race, "register " + name + " of a wgmma " + what);
}

}  // namespace

WgmmaState& wgmma_state_of(Warp& w) {
  auto& state = engines_of(w).wgmma;
  if (!state) {
    state = std::make_unique<WgmmaState>();
    state->uses.resize(w.register_bytes / 64 + 2);
    state->shadow = std::make_unique_for_overwrite<uint8_t[]>(w.register_bytes + 128);
  }
  return *state;
}

void check_registers(const Warp& w, const WgmmaState& s, std::span<const Ref> refs, size_t d_count,
                     uint32_t shape) {
  const uint64_t settled = s.settled;
  const uint32_t interval = s.interval;
  for (size_t r = 0; r < refs.size(); ++r) {
    const RegisterUse& use = s.uses[refs[r] / 64];
    const bool accumulator = r < d_count;
    if (use.held_until > settled && use.accumulator != accumulator)
      register_fault(w, refs[r], "is in use by an earlier wgmma that has not been waited for");
    if (use.touched == interval)
      register_fault(w, refs[r], "was used since the last wgmma.fence: a wgmma.fence is missing");
    if (accumulator && use.accumulator && use.shape != shape && use.shape_interval == interval)
      register_fault(w, refs[r], "accumulated another shape since the last wgmma.fence");
  }
}

void hold_registers(Warp& w, WgmmaState& s, std::span<const Ref> refs, size_t d_count,
                    uint32_t shape) {
  const uint64_t settled = s.settled, until = s.issued + 1;
  const bool eager = is_eager(w);
  for (size_t r = 0; r < refs.size(); ++r) {
    RegisterUse& use = s.uses[refs[r] / 64];
    const bool held = use.held_until > settled, accumulator = r < d_count;
    use = {until, use.touched, shape, s.interval, accumulator};
    if (!accumulator || held || eager) continue;
    uint8_t* bytes = w.out<uint8_t>(refs[r]);
    std::memcpy(s.shadow.get() + refs[r], bytes, 4 * kLanes);
    std::memset(bytes, 0xff, 4 * kLanes);
    s.held.push_back(refs[r]);
  }
}

void release_registers(Warp& w, WgmmaState& s) {
  std::erase_if(s.held, [&](Ref ref) {
    if (s.uses[ref / 64].held_until > s.settled) return false;
    std::memcpy(w.out<uint8_t>(ref), s.shadow.get() + ref, 4 * kLanes);
    return true;
  });
}

void note_matrix_registers(Warp& w, const Instr& in) {
  if (!w.machine->options.races) return;
  if (!engines_of(w).wgmma) return;  // a wgmma.fence comes before the first operation
  WgmmaState& s = wgmma_state_of(w);
  const auto pc = static_cast<size_t>(&in - program_of(w).code.data());
  for (Ref ref : program_of(w).operands[pc]) {
    RegisterUse& use = s.uses[ref / 64];
    use.touched = s.interval;
    if (use.held_until > s.settled)
      register_fault(w, ref, "is used before the wgmma has been waited for");
  }
}

}  // namespace ptx
