// The C interface to ptx_emulator.h, for Python's ctypes.
#include <algorithm>
#include <cstring>
#include <deque>

#include "profile.h"
#include "program.h"
#include "ptx_emulator.h"

namespace {

using namespace ptx_emulator;

struct LoadedModule {
  Module module;
  std::deque<std::string> names;  // what the interface hands out as C strings
};

struct Outcome {
  std::string error;
  int kind = -1;  // Fault::Kind, 100 for other errors
  Stats stats;
  std::vector<uint64_t> rows;  // what was handed out last
};

const LoadedModule& loaded(void* module) {
  return *static_cast<LoadedModule*>(module);
}

const char* keep(void* module, std::string_view text) {
  auto& names = static_cast<LoadedModule*>(module)->names;
  return names.emplace_back(text).c_str();
}

void copy_text(const char* text, char* out, uint64_t size) {
  std::strncpy(out, text, size - 1);
  out[size - 1] = 0;
}

}  // namespace

extern "C" {

struct PtxRegion {
  uint64_t begin, bytes;
  const char* name;
  int32_t read_only, written;
  uint64_t* written_bits;  // or null
};

struct PtxLaunch {
  uint32_t grid[3], block[3], cluster[3];
  uint64_t dynamic_shared, seed, max_instructions;
  int32_t mode, races;
  const uint8_t* params;
  const PtxRegion* regions;
  uint64_t region_count;
  int32_t coarse_fp8, profile;
  const volatile bool* stop;
};

// An instruction of a module, for those who interpret its counts.
struct PtxInstruction {
  const char *opcode, *space, *file;  // file: empty if it is not known
  int32_t line, source_line, function;
  int32_t is_guarded;
  uint32_t target;  // of bra: a pc; of brx.idx: a table
};

struct PtxKernel {
  const char* name;
  int32_t line;
  uint32_t required_block[3], required_cluster[3], max_threads, max_registers, min_ctas;
  uint64_t static_shared, local_bytes, param_count;
};

// Null with the reason in `error` if the text is no PTX.
void* ptx_module_load(const char* text, uint64_t bytes, char* error, uint64_t error_bytes) {
  try {
    return new LoadedModule{Module(std::string(text, bytes)), {}};
  } catch (const std::exception& e) {
    copy_text(e.what(), error, error_bytes);
    return nullptr;
  }
}
void ptx_module_free(void* module) {
  delete static_cast<LoadedModule*>(module);
}
const char* ptx_target(void* module) {
  return loaded(module).module.target().c_str();
}

uint64_t ptx_unsupported_count(void* module) {
  return loaded(module).module.unsupported().size();
}
int32_t ptx_unsupported(void* module, uint64_t i, const char** text, const char** reason) {
  const Unsupported& u = loaded(module).module.unsupported()[i];
  *text = u.text.c_str();
  *reason = u.reason.c_str();
  return u.line;
}

uint64_t ptx_kernel_count(void* module) {
  return loaded(module).module.kernels().size();
}
void ptx_kernel(void* module, uint64_t i, PtxKernel* out) {
  const Kernel& k = loaded(module).module.kernels()[i];
  *out = {k.name.c_str(),
          k.line,
          {},
          {},
          k.max_threads,
          k.max_registers,
          k.min_ctas,
          k.static_shared,
          k.local_bytes,
          k.parameters.size()};
  std::copy_n(k.required_block, 3, out->required_block);
  std::copy_n(k.required_cluster, 3, out->required_cluster);
}
void ptx_param(void* module, uint64_t kernel, uint64_t i, const char** name, uint64_t* offset,
               uint64_t* bytes) {
  const Parameter& p = loaded(module).module.kernels()[kernel].parameters[i];
  *name = p.name.c_str();
  *offset = p.offset;
  *bytes = p.bytes;
}
// The address of a module's variable, null if there is none of that name.
void* ptx_variable(void* module, const char* name, uint64_t* bytes) {
  const Region region = loaded(module).module.variable(name);
  *bytes = region.bytes;
  return region.begin;
}

// 0, or 1 with the reason in `error`.
int32_t ptx_encode_tensor_map(const TensorMapArguments* arguments, void* out, char* error,
                              uint64_t error_bytes) {
  try {
    encode_tensor_map(*arguments, out);
    return 0;
  } catch (const Error& e) {
    copy_text(e.what(), error, error_bytes);
    return 1;
  }
}

// `params` is the block of parameters, as long as the kernel has it.
void* ptx_launch(void* module, uint64_t kernel, const PtxLaunch* launch) {
  auto outcome = std::make_unique<Outcome>();
  try {
    const Kernel& k = loaded(module).module.kernels()[kernel];
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
    o.profile = launch->profile;
    o.stop = launch->stop;
    std::vector<const void*> arguments;
    for (const Parameter& p : k.parameters) arguments.push_back(launch->params + p.offset);
    std::vector<Region> memory;
    for (uint64_t i = 0; i < launch->region_count; ++i) {
      const PtxRegion& r = launch->regions[i];
      memory.push_back({reinterpret_cast<void*>(r.begin), r.bytes, r.name, r.read_only != 0,
                        r.written != 0, r.written_bits});
    }
    outcome->stats = loaded(module).module.launch(k, o, arguments, memory);
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
// Executions of every instruction, [warps of a CTA][instructions], or those of them for which no
// lane's guard was true.
void ptx_outcome_counts(void* outcome, int32_t skipped, uint64_t* out) {
  const Stats& s = static_cast<Outcome*>(outcome)->stats;
  for (const auto& counts : skipped ? s.skipped : s.counts)
    out = std::copy(counts.begin(), counts.end(), out);
}
// Rows of a pc and its Profile::Counters, of the warps of one index; returns how many numbers. They
// last until the next call.
uint64_t ptx_outcome_accesses(void* outcome, uint64_t warp, const uint64_t** numbers) {
  auto& o = *static_cast<Outcome*>(outcome);
  if (!o.stats.profile || warp >= o.stats.profile->warps()) return 0;
  o.rows = o.stats.profile->rows(warp);
  *numbers = o.rows.data();
  return o.rows.size();
}
// path: a Path, or -1 for any.
uint64_t ptx_outcome_unique_sectors(void* outcome, int32_t path, int32_t read, int32_t written) {
  const Stats& s = static_cast<Outcome*>(outcome)->stats;
  return s.profile ? s.profile->unique_sectors(path, read, written) : 0;
}

uint64_t ptx_instruction_count(void* module) {
  return loaded(module).module.program().code.size();
}
void ptx_instruction(void* module, uint64_t pc, PtxInstruction* out) {
  const ptx::Program& program = loaded(module).module.program();
  const ptx::Instr& in = program.code[pc];
  const ptx::InstrInfo& info = program.info[pc];
  *out = {keep(module, info.opcode), name_of(in.space), "", info.line, 0, info.function,
          in.guard != ptx::kNoRef,   in.target};
  if (info.location < 0) return;
  const ptx::SourceLocation& at = program.module->locations[info.location];
  out->source_line = at.line;
  for (const auto& [number, name] : program.module->files)
    if (number == at.file) out->file = keep(module, name);
}
// The pcs of a table of branch targets.
uint64_t ptx_branch_table(void* module, uint64_t table, const uint32_t** pcs) {
  const auto& all = loaded(module).module.program().branch_tables[table];
  *pcs = all.data();
  return all.size();
}

}  // extern "C"
