// Uses the C++ interface as a program outside the emulator would; the test reads what it prints.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "ptx_emulator.h"

using namespace ptx_emulator;

namespace {

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class F>
void expect_fault(const char* what, F launch) {
  try {
    launch();
    std::printf("%s: none\n", what);
  } catch (const Fault& fault) {
    std::printf("%s: kind %d: %s\n", what, fault.kind, fault.what());
  } catch (const Error& error) {
    std::printf("%s: error: %s\n", what, error.what());
  }
}

void describe(const Module& module) {
  for (const Kernel& k : module.kernels()) {
    std::printf("kernel %s for %s:", k.name.c_str(), module.target().c_str());
    for (const Parameter& p : k.parameters)
      std::printf(" %s %llu+%llu", p.name.c_str(), static_cast<unsigned long long>(p.offset),
                  static_cast<unsigned long long>(p.bytes));
    std::printf("\n");
  }
  for (const Unsupported& u : module.unsupported())
    std::printf("not modelled: line %d: %s: %s\n", u.line, u.text.c_str(), u.reason.c_str());
}

void launch_scale(const Module& module) {
  const Kernel& kernel = *module.find("scale");
  std::vector<float> x(64), y(64);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  const float *from = x.data(), factor = 3;
  float* to = y.data();
  LaunchOptions options;
  options.block[0] = 64;
  options.mode = Mode::random;
  options.seed = 7;
  const auto bytes = static_cast<uint64_t>(x.size() * sizeof(float));
  const std::vector<const void*> arguments{&from, &to, &factor};
  std::vector<Region> memory{{x.data(), bytes, "x", true}, {y.data(), bytes, "y", false, false}};
  const Stats stats = module.launch(kernel, options, arguments, memory);
  std::printf("scale: %g %g, %llu warp instructions\n", y[1], y[63],
              static_cast<unsigned long long>(stats.warp_instructions));
  expect_fault("past the end", [&] {
    memory[1].bytes = 64;
    module.launch(kernel, options, arguments, memory);
  });
  expect_fault("too few arguments", [&] { module.launch(kernel, options, {}, memory); });
  expect_fault("too large", [&] {
    options.block[0] = 2048;
    module.launch(kernel, options, arguments, memory);
  });
}

void launch_racy(const Module& module) {
  std::vector<unsigned> x(64), y(64);
  const unsigned* from = x.data();
  unsigned* to = y.data();
  LaunchOptions options;
  options.block[0] = 64;
  const std::vector<Region> memory{{x.data(), 256, "x"}, {y.data(), 256, "y"}};
  const auto launch = [&] { module.launch(*module.find("racy"), options, {&from, &to}, memory); };
  expect_fault("racy", launch);
  options.races = false;
  expect_fault("racy, not looked for", launch);
}

void encode_maps() {
  alignas(64) unsigned char map[128];
  alignas(16) static float array[64][32];
  TensorMapArguments a{};
  a.data_type = 7;  // CU_TENSOR_MAP_DATA_TYPE_FLOAT32
  a.rank = 2;
  a.address = reinterpret_cast<uint64_t>(array);
  a.dims[0] = 32;
  a.dims[1] = 64;
  a.strides[0] = sizeof(array[0]);
  a.box[0] = a.box[1] = 16;
  a.element_strides[0] = a.element_strides[1] = 1;
  expect_fault("a map", [&] { encode_tensor_map(a, map); });
  a.box[1] = 257;
  expect_fault("a wrong map", [&] { encode_tensor_map(a, map); });
}

}  // namespace

int main(int, char** paths) {
  const Module scale(text_of(paths[1])), racy(text_of(paths[2])), unknown(text_of(paths[3]));
  for (const Module* module : {&scale, &racy, &unknown}) describe(*module);
  launch_scale(scale);
  launch_racy(racy);
  expect_fault("unknown", [&] { unknown.launch(*unknown.find("unknown"), {}, {}, {}); });
  expect_fault("no PTX", [&] { Module("int main() {}"); });
  std::printf("no kernel: %d\n", scale.find("other") == nullptr);
  encode_maps();
}
