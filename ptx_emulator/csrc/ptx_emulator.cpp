#include "ptx_emulator.h"

#include <algorithm>
#include <cstring>

#include "decoder.h"
#include "machine.h"
#include "parser.h"
#include "profile.h"

namespace ptx_emulator {
namespace {

Kernel describe(const ptx::Kernel& k, size_t index) {
  Kernel out;
  const ptx::Function& f = *k.source;
  out.name = k.name;
  out.line = f.line;
  for (const ptx::Parameter& p : k.params)
    out.parameters.push_back({std::string(p.name), p.offset, p.bytes});
  out.static_shared = k.static_shared;
  out.local_bytes = k.local_bytes;
  for (int axis = 0; axis < 3; ++axis) {
    out.required_block[axis] = static_cast<uint32_t>(f.required_threads[axis]);
    out.required_cluster[axis] = static_cast<uint32_t>(f.required_cluster[axis]);
  }
  out.max_threads = static_cast<uint32_t>(f.max_threads);
  out.max_registers = static_cast<uint32_t>(f.max_registers);
  out.min_ctas = static_cast<uint32_t>(f.min_ctas);
  out.index = index;
  return out;
}

std::vector<uint8_t> block_of(const ptx::Kernel& k, const std::vector<const void*>& arguments) {
  if (arguments.size() != k.params.size())
    throw Error(std::string(k.name) + " takes " + std::to_string(k.params.size()) +
                " arguments, got " + std::to_string(arguments.size()));
  std::vector<uint8_t> block(k.param_bytes);
  for (size_t i = 0; i < arguments.size(); ++i)
    std::memcpy(block.data() + k.params[i].offset, arguments[i], k.params[i].bytes);
  return block;
}

}  // namespace

struct Module::Loaded {
  std::unique_ptr<ptx::Program> program;
  std::vector<Kernel> kernels;
  std::vector<Unsupported> unsupported;
  std::string target;
};

Module::Module(std::string text) : loaded_(std::make_unique<Loaded>()) {
  std::vector<ptx::Unsupported> unsupported;
  loaded_->program = ptx::decode(ptx::parse(std::move(text)), unsupported);
  for (ptx::Unsupported& u : unsupported)
    loaded_->unsupported.push_back({u.line, std::move(u.text), std::move(u.reason)});
  for (const ptx::Kernel& k : loaded_->program->kernels)
    loaded_->kernels.push_back(describe(k, loaded_->kernels.size()));
  loaded_->target = loaded_->program->module->target;
}
Module::~Module() = default;
Module::Module(Module&&) noexcept = default;
Module& Module::operator=(Module&&) noexcept = default;

const std::string& Module::target() const {
  return loaded_->target;
}
const std::vector<Kernel>& Module::kernels() const {
  return loaded_->kernels;
}
const std::vector<Unsupported>& Module::unsupported() const {
  return loaded_->unsupported;
}
const ptx::Program& Module::program() const {
  return *loaded_->program;
}

const Kernel* Module::find(std::string_view name) const {
  const auto& all = loaded_->kernels;
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const Kernel& k) { return k.name == name; });
  return it == all.end() ? nullptr : &*it;
}

Region Module::variable(std::string_view name) const {
  for (const auto& g : loaded_->program->globals)
    if (g.name == name)
      return {reinterpret_cast<void*>(g.address), g.size, std::string(name), g.is_constant, true};
  return {};
}

Stats Module::launch(const Kernel& kernel, const LaunchOptions& options,
                     const std::vector<const void*>& arguments,
                     const std::vector<Region>& memory) const {
  if (!loaded_->unsupported.empty()) {
    std::string all = "the module uses what is not modelled:";
    for (const Unsupported& u : loaded_->unsupported)
      all += "\n  line " + std::to_string(u.line) + ": " + u.text + ": " + u.reason;
    throw Fault(Fault::unsupported, all);
  }
  const ptx::Program& program = *loaded_->program;
  const ptx::Kernel& k = program.kernels.at(kernel.index);
  ptx::GlobalMemory global;
  for (const Region& r : memory)
    global.add(reinterpret_cast<uint64_t>(r.begin), r.bytes, r.name, r.read_only, r.written,
               r.written_bits);
  for (const auto& g : program.globals)
    global.add(g.address, g.size, std::string(g.name), g.is_constant, true);
  // As cooperative_groups lays it out: its size, and a counter for grid_group::sync().
  alignas(16) uint32_t workspace[4] = {sizeof(workspace)};
  const uint64_t workspace_at = reinterpret_cast<uint64_t>(workspace);
  global.add(workspace_at, sizeof(workspace), "the grid's workspace", false, true);
  global.finish(options.races);
  ptx::Machine machine(program, k, options, global, block_of(k, arguments));
  machine.grid_workspace = workspace_at;
  machine.run();
  machine.stats.profile = std::move(machine.profile);
  return std::move(machine.stats);
}

void encode_tensor_map(const TensorMapArguments& arguments, void* out) {
  std::string wrong = ptx::check(arguments);
  ptx::TensorMap map{};
  if (wrong.empty()) wrong = ptx::encode(arguments, map).value_or("");
  if (!wrong.empty()) throw Error(wrong);
  std::memset(out, 0, ptx::kTensorMapBytes);
  std::memcpy(out, &map, sizeof(map));
}

}  // namespace ptx_emulator
