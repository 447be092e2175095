// The library's C interface, for Python's ctypes.
#include <cstring>
#include <deque>
#include <string>

#include "decoder.h"
#include "error.h"
#include "machine.h"
#include "parser.h"

namespace {

using namespace ptx;

struct LoadedModule {
  std::unique_ptr<Program> program;
  std::vector<Unsupported> unsupported;
  std::deque<std::string> names;  // what the interface hands out as C strings
};

struct Outcome {
  std::string error;
  int kind = -1;  // Fault::Kind, 100 for other errors
  Stats stats;
};

const char* keep(LoadedModule& m, std::string_view text) {
  m.names.emplace_back(text);
  return m.names.back().c_str();
}

}  // namespace

extern "C" {

struct PtxRegion {
  uint64_t begin, bytes;
  const char* name;
  int32_t read_only, written;
};

struct PtxLaunch {
  uint32_t grid[3], block[3], cluster[3];
  uint64_t dynamic_shared, seed, max_instructions;
  int32_t mode, races;
  const uint8_t* params;
  uint64_t param_bytes;
  const PtxRegion* regions;
  uint64_t region_count;
  int32_t coarse_fp8;
};

// Never null; ptx_module_error says whether the text could be parsed.
void* ptx_module_load(const char* text, uint64_t bytes, char* error, uint64_t error_bytes) {
  auto m = std::make_unique<LoadedModule>();
  try {
    m->program = decode(parse(std::string(text, bytes)), m->unsupported);
  } catch (const std::exception& e) {
    std::strncpy(error, e.what(), error_bytes - 1);
    error[error_bytes - 1] = 0;
    return nullptr;
  }
  return m.release();
}
void ptx_module_free(void* module) {
  delete static_cast<LoadedModule*>(module);
}

uint64_t ptx_unsupported_count(void* module) {
  return static_cast<LoadedModule*>(module)->unsupported.size();
}
int32_t ptx_unsupported(void* module, uint64_t i, const char** text, const char** reason) {
  auto& m = *static_cast<LoadedModule*>(module);
  *text = keep(m, m.unsupported[i].text);
  *reason = keep(m, m.unsupported[i].reason);
  return m.unsupported[i].line;
}

uint64_t ptx_kernel_count(void* module) {
  return static_cast<LoadedModule*>(module)->program->kernels.size();
}
const char* ptx_kernel_name(void* module, uint64_t i) {
  auto& m = *static_cast<LoadedModule*>(module);
  return keep(m, m.program->kernels[i].name);
}
uint64_t ptx_param_count(void* module, uint64_t kernel) {
  return static_cast<LoadedModule*>(module)->program->kernels[kernel].params.size();
}
void ptx_param(void* module, uint64_t kernel, uint64_t i, uint64_t* offset, uint64_t* bytes) {
  const Parameter& p = static_cast<LoadedModule*>(module)->program->kernels[kernel].params[i];
  *offset = p.offset;
  *bytes = p.bytes;
}
void ptx_kernel_cluster(void* module, uint64_t kernel, uint32_t* out) {
  const Function& f = *static_cast<LoadedModule*>(module)->program->kernels[kernel].source;
  for (int i = 0; i < 3; ++i) out[i] = static_cast<uint32_t>(f.required_cluster[i]);
}
// The address of a module's variable, 0 if there is none of that name.
uint64_t ptx_variable(void* module, const char* name, uint64_t* bytes) {
  for (const auto& g : static_cast<LoadedModule*>(module)->program->globals)
    if (g.name == name) {
      *bytes = g.size;
      return g.address;
    }
  return 0;
}

void* ptx_launch(void* module, uint64_t kernel, const PtxLaunch* launch) {
  auto outcome = std::make_unique<Outcome>();
  const Program& program = *static_cast<LoadedModule*>(module)->program;
  try {
    LaunchOptions o;
    std::memcpy(o.grid, launch->grid, sizeof(o.grid));
    std::memcpy(o.block, launch->block, sizeof(o.block));
    std::memcpy(o.cluster, launch->cluster, sizeof(o.cluster));
    o.dynamic_shared = launch->dynamic_shared;
    o.seed = launch->seed;
    o.max_instructions = launch->max_instructions;
    o.mode = static_cast<Mode>(launch->mode);
    o.races = launch->races;
    o.coarse_fp8 = launch->coarse_fp8;
    GlobalMemory memory;
    for (uint64_t i = 0; i < launch->region_count; ++i) {
      const PtxRegion& r = launch->regions[i];
      memory.add(r.begin, r.bytes, r.name, r.read_only, r.written);
    }
    for (const auto& g : program.globals)
      memory.add(g.address, g.size, std::string(g.name), g.is_constant, true);
    memory.finish(o.races);
    Machine machine(program, program.kernels[kernel], o, memory,
                    {launch->params, launch->params + launch->param_bytes});
    machine.run();
    outcome->stats = std::move(machine.stats);
  } catch (const Fault& e) {
    outcome->error = e.what();
    outcome->kind = e.kind;
  } catch (const std::exception& e) {
    outcome->error = e.what();
    outcome->kind = 100;
  }
  return outcome.release();
}
void ptx_outcome_free(void* outcome) {
  delete static_cast<Outcome*>(outcome);
}
int32_t ptx_outcome_kind(void* outcome) {
  return static_cast<Outcome*>(outcome)->kind;
}
const char* ptx_outcome_error(void* outcome) {
  return static_cast<Outcome*>(outcome)->error.c_str();
}
uint64_t ptx_outcome_stat(void* outcome, int32_t which) {
  const Stats& s = static_cast<Outcome*>(outcome)->stats;
  return which == 0 ? s.warp_instructions : s.max_resident;
}
// Executions of every instruction by the warps of one index; returns how many instructions.
uint64_t ptx_outcome_counts(void* outcome, uint64_t warp, const uint64_t** counts) {
  const Stats& s = static_cast<Outcome*>(outcome)->stats;
  if (warp >= s.counts.size()) return 0;
  *counts = s.counts[warp].data();
  return s.counts[warp].size();
}
int32_t ptx_instruction(void* module, uint64_t pc, const char** opcode) {
  auto& m = *static_cast<LoadedModule*>(module);
  const InstrInfo& info = m.program->info[pc];
  *opcode = keep(m, info.opcode);
  return info.line;
}

}  // extern "C"
