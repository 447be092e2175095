// Host code for the CUDA driver, run on the emulator; the test reads what it prints. With the
// argument "hardware" behind the folder the GEMM runs on libcuda.so.1 instead.
#include "driver.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "host_driver.h"

namespace {

void* find_in_libcuda(const char* name) {
  static void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    std::printf("there is no libcuda.so.1\n");
    std::exit(77);
  }
  return dlsym(library, name);
}

struct Test {
  Driver driver;
  std::string folder;
  CUcontext context = nullptr;

  std::string text_of(const char* name) const {
    std::ifstream file(folder + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Prints the result of a call, and what the driver says of it.
  void say(const char* what, CUresult result) const {
    const char *name = nullptr, *text = nullptr;
    driver.cuGetErrorName(result, &name);
    driver.cuGetErrorString(result, &text);
    std::printf("%s: %s: %s\n", what, name, result == CUDA_SUCCESS ? "" : text);
  }

  CUlibrary load(const char* name) const {
    CUlibrary library;
    const std::string text = text_of(name);
    driver.must(
        driver.cuLibraryLoadData(&library, text.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        name);
    return library;
  }
  CUfunction function(CUlibrary library, const char* name) const {
    CUkernel kernel;
    CUfunction f;
    driver.must(driver.cuLibraryGetKernel(&kernel, library, name), name);
    driver.must(driver.cuKernelGetFunction(&f, kernel), name);
    return f;
  }
  CUdeviceptr allocate(size_t bytes) const {
    CUdeviceptr p;
    driver.must(driver.cuMemAlloc_v2(&p, bytes), "cuMemAlloc");
    return p;
  }

  void start() {
    say("not initialised", driver.cuCtxSynchronize());
    driver.must(driver.cuInit(0), "cuInit");
    CUdevice device;
    driver.must(driver.cuDeviceGet(&device, 0), "cuDeviceGet");
    say("no second device", driver.cuDeviceGet(&device, 1));
    CUdeviceptr p;
    say("no context", driver.cuMemAlloc_v2(&p, 16));
    driver.must(driver.cuDevicePrimaryCtxRetain(&context, device), "retain");
    driver.must(driver.cuCtxSetCurrent(context), "set current");
  }

  void device_attributes() const {
    int sms = 0, shared = 0, major = 0, clusters = 0;
    driver.cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
    driver.cuDeviceGetAttribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0);
    driver.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
    driver.cuDeviceGetAttribute(&clusters, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0);
    std::printf("device: %d %d %d %d\n", sms, shared, major, clusters);
    say("unknown attribute", driver.cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 0));
  }

  void gemm() const {
    constexpr unsigned m = 200, n = 72, k = 136;
    std::vector<uint16_t> a(m * k), b(n * k);
    std::vector<float> c(m * n);
    // Small integers, whose sums are exact, as bf16.
    const auto bf16 = [](int value) {
      const float f = static_cast<float>(value);
      uint32_t bits;
      std::memcpy(&bits, &f, 4);
      return static_cast<uint16_t>(bits >> 16);
    };
    const auto a_at = [](unsigned i, unsigned x) {
      return static_cast<int>((i * 7 + x * 3) % 9) - 4;
    };
    const auto b_at = [](unsigned j, unsigned x) { return static_cast<int>((j * 5 + x) % 7) - 3; };
    for (unsigned i = 0; i < a.size(); ++i) a[i] = bf16(a_at(i / k, i % k));
    for (unsigned i = 0; i < b.size(); ++i) b[i] = bf16(b_at(i / k, i % k));
    const CUdeviceptr da = allocate(a.size() * 2), db = allocate(b.size() * 2),
                      dc = allocate(c.size() * 4);
    CUstream stream;
    driver.must(driver.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
    driver.must(driver.cuMemcpyHtoD_v2(da, a.data(), a.size() * 2), "copy A");
    driver.must(driver.cuMemcpyHtoDAsync_v2(db, b.data(), b.size() * 2, stream), "copy B");
    const CUfunction f = function(load("ring.ptx"), "gemm_ring");
    say("too much shared memory", launch_gemm(driver, f, da, db, dc, m, n, k));
    const auto shared = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    say("more than there is", driver.cuFuncSetAttribute(f, shared, 228 << 10));
    driver.must(driver.cuFuncSetAttribute(f, shared, 227 << 10), "raise shared memory");
    int now = 0;
    driver.cuFuncGetAttribute(&now, shared, f);
    driver.must(launch_gemm(driver, f, da, db, dc, m, n, k), "launch");
    driver.must(driver.cuMemcpyDtoHAsync_v2(c.data(), dc, c.size() * 4, stream), "copy C");
    driver.must(driver.cuStreamSynchronize(stream), "synchronise");
    int wrong = 0;
    for (unsigned i = 0; i < m; ++i)
      for (unsigned j = 0; j < n; ++j) {
        int sum = 0;
        for (unsigned x = 0; x < k; ++x) sum += a_at(i, x) * b_at(j, x);
        wrong += c[i * n + j] != static_cast<float>(sum);
      }
    std::printf("gemm: %d wrong, %d bytes of shared memory allowed\n", wrong, now);
    driver.must(driver.cuMemFree_v2(dc), "free");
    say("freed memory", launch_gemm(driver, f, da, db, dc, m, n, k));
    say("freed twice", driver.cuMemFree_v2(dc));
    driver.must(driver.cuStreamDestroy_v2(stream), "destroy stream");
  }

  CUresult launch(CUfunction f, unsigned grid, unsigned block, std::vector<void*> params,
                  std::vector<CUlaunchAttribute> attributes = {}) const {
    CUlaunchConfig config{};
    config.gridDimX = grid;
    config.blockDimX = block;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.attrs = attributes.data();
    config.numAttrs = static_cast<unsigned>(attributes.size());
    return driver.cuLaunchKernelEx(&config, f, params.data(), nullptr);
  }
  static CUlaunchAttribute cluster_of(unsigned x) {
    CUlaunchAttribute a{};
    a.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    a.value.clusterDim = {x, 1, 1};
    return a;
  }

  void clusters() const {
    const CUfunction f = function(load("cluster_size.ptx"), "cluster_size");
    CUdeviceptr out = allocate(4);
    unsigned size = 0;
    driver.must(launch(f, 8, 32, {&out}, {cluster_of(4)}), "cluster");
    driver.cuMemcpyDtoH_v2(&size, out, 4);
    std::printf("cluster: %u\n", size);
    say("cluster of 16", launch(f, 16, 32, {&out}, {cluster_of(16)}));
    driver.cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    say("cluster of 16, allowed", launch(f, 16, 32, {&out}, {cluster_of(16)}));
    say("cluster of 17", launch(f, 17, 32, {&out}, {cluster_of(17)}));
    say("cluster of 3 in 8", launch(f, 8, 32, {&out}, {cluster_of(3)}));
    CUlaunchAttribute cooperative{}, event{};
    cooperative.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    cooperative.value.cooperative = 1;
    event.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
    say("cooperative", launch(f, 132, 1024, {&out}, {cooperative}));
    say("too many CTAs", launch(f, 1000, 1024, {&out}, {cooperative}));
    say("an event", launch(f, 1, 32, {&out}, {event}));
    say("2048 threads", launch(f, 1, 2048, {&out}));
    const CUfunction required = function(load("required.ptx"), "required");
    say("required cluster", launch(required, 4, 32, {&out}));
    say("another cluster", launch(required, 4, 32, {&out}, {cluster_of(4)}));
  }

  void memory() const {
    const CUfunction scale = function(load("scale.ptx"), "scale");
    CUdeviceptr x = allocate(256), y = allocate(256), z = allocate(256);
    float factor = 2;
    say("nobody has written x", launch(scale, 1, 64, {&x, &y, &factor}));
    driver.must(driver.cuMemsetD32Async(x, 0x40400000, 64, nullptr), "memset");  // 3.0
    say("x is written", launch(scale, 1, 64, {&x, &y, &factor}));
    say("y was written by a launch", launch(scale, 1, 64, {&y, &z, &factor}));
    float result[64];
    driver.cuMemcpyDtoH_v2(result, z, sizeof(result));
    std::printf("twice scaled: %g %g\n", result[0], result[63]);
    CUdeviceptr half = allocate(256);
    driver.must(driver.cuMemsetD8_v2(half, 0, 128), "memset");
    say("half of x is written", launch(scale, 1, 64, {&half, &y, &factor}));
    say("past the end", driver.cuMemsetD8Async(x + 128, 0, 129, nullptr));
    say("no bytes", driver.cuMemAlloc_v2(&x, 0));
    say("too many bytes", driver.cuMemAlloc_v2(&x, size_t{1} << 60));
    say("no parameters",
        driver.cuLaunchKernel(scale, 1, 1, 1, 64, 1, 1, 0, nullptr, nullptr, nullptr));
    registered(scale);
  }

  void registered(CUfunction scale) const {
    static float tensor[128], out[64];
    float factor = 3;
    CUdeviceptr x = reinterpret_cast<CUdeviceptr>(tensor), y = reinterpret_cast<CUdeviceptr>(out);
    tensor[5] = 7;
    const auto result = [](int32_t code) { return static_cast<CUresult>(code); };
    say("not registered", launch(scale, 1, 64, {&x, &y, &factor}));
    say("register", result(ptx_driver_register(tensor, 256, "tensor", 1, 1)));
    say("register out", result(ptx_driver_register(out, sizeof(out), "out", 0, 0)));
    say("overlaps", result(ptx_driver_register(tensor + 32, 512, "other", 0, 1)));
    say("registered", launch(scale, 1, 64, {&x, &y, &factor}));
    std::printf("tensor: %g\n", out[5]);
    say("out is written now", launch(scale, 1, 64, {&y, &y, &factor}));
    say("tensor is constant", launch(scale, 1, 64, {&y, &x, &factor}));
    say("past the tensor", launch(scale, 1, 96, {&x, &y, &factor}));
    say("unregister", result(ptx_driver_unregister(tensor)));
    say("unregister again", result(ptx_driver_unregister(tensor)));
    say("gone", launch(scale, 1, 64, {&x, &y, &factor}));
  }

  void races() const {
    const CUfunction racy = function(load("racy.ptx"), "racy");
    CUdeviceptr x = allocate(256), y = allocate(256);
    driver.must(driver.cuMemsetD8_v2(x, 0, 256), "memset");
    say("racy", launch(racy, 1, 64, {&x, &y}));
    PtxDriverOptions options;
    ptx_driver_get_options(&options);
    std::printf("options: mode %d, races %d, seed %llu\n", options.mode, options.races,
                static_cast<unsigned long long>(options.seed));
    options.races = 0;
    ptx_driver_set_options(&options);
    say("racy, not looked for", launch(racy, 1, 64, {&x, &y}));
    options.races = 1;
    ptx_driver_set_options(&options);
  }

  void variables() const {
    CUmodule module;
    driver.must(driver.cuModuleLoadData(&module, text_of("variable.ptx").c_str()), "module");
    CUfunction f;
    driver.must(driver.cuModuleGetFunction(&f, module, "add_table"), "function");
    CUdeviceptr table, out = allocate(4);
    size_t bytes = 0;
    driver.must(driver.cuModuleGetGlobal_v2(&table, &bytes, module, "table"), "variable");
    const unsigned values[2] = {30, 12};
    driver.must(driver.cuMemcpyHtoD_v2(table, values, sizeof(values)), "copy");
    driver.must(launch(f, 1, 1, {&out}), "launch");
    unsigned sum = 0;
    driver.cuMemcpyDtoH_v2(&sum, out, 4);
    std::printf("variable: %zu bytes, %u\n", bytes, sum);
    say("no variable", driver.cuModuleGetGlobal_v2(&table, &bytes, module, "other"));
    driver.must(driver.cuModuleUnload(module), "unload");
    say("unloaded", launch(f, 1, 1, {&out}));
  }

  void loading() const {
    CUlibrary library;
    const auto from_text = [&](const char* text) {
      return driver.cuLibraryLoadData(&library, text, nullptr, nullptr, 0, nullptr, nullptr, 0);
    };
    const auto from_file = [&](const std::string& name) {
      return driver.cuLibraryLoadFromFile(&library, (folder + "/" + name).c_str(), nullptr, nullptr,
                                          0, nullptr, nullptr, 0);
    };
    say("no PTX", from_text("int main() {}"));
    say("a cubin", from_text("\x7f"
                             "ELF"));
    say("not modelled", from_text(text_of("unknown.ptx").c_str()));
    say("sm_100", from_text(text_of("blackwell.ptx").c_str()));
    say("no file", from_file("absent.ptx"));
    say("a fatbin with PTX beside it", from_file("scale.fatbin"));
    unsigned count = 0;
    driver.must(driver.cuLibraryGetKernelCount(&count, library), "kernels");
    CUkernel kernel, kernels[2] = {};
    driver.must(driver.cuLibraryEnumerateKernels(kernels, 2, library), "their handles");
    CUfunction function;
    driver.must(driver.cuKernelGetFunction(&function, kernels[0]), "the first");
    std::printf("%u kernel, %d\n", count, kernels[1] == nullptr);
    say("load it", driver.cuFuncLoad(function));
    say("no kernel", driver.cuLibraryGetKernel(&kernel, library, "other"));
    say("no library",
        driver.cuLibraryGetKernel(&kernel, reinterpret_cast<CUlibrary>(&kernel), "k"));
    say("unload", driver.cuLibraryUnload(library));
  }

  void tensor_maps() const {
    alignas(64) CUtensorMap map;
    const CUdeviceptr base = allocate(64 * 64 * 4);
    const auto encode = [&](unsigned columns, unsigned box_rows, CUtensorMapInterleave interleave) {
      const cuuint64_t dims[] = {64, 64, 4}, strides[] = {256, 16384};
      const cuuint32_t box[] = {columns, box_rows, 1}, steps[] = {1, 1, 1};
      return driver.cuTensorMapEncodeTiled(
          &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 3, reinterpret_cast<void*>(base), dims, strides,
          box, steps, interleave, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    };
    say("a map", encode(32, 8, CU_TENSOR_MAP_INTERLEAVE_NONE));
    say("a high box", encode(32, 300, CU_TENSOR_MAP_INTERLEAVE_NONE));
    say("wider than the swizzle", encode(64, 8, CU_TENSOR_MAP_INTERLEAVE_NONE));
    say("interleaved", encode(8, 8, CU_TENSOR_MAP_INTERLEAVE_16B));
  }
};

}  // namespace

int main(int count, char** words) {
  const bool hardware = count > 2 && !std::strcmp(words[2], "hardware");
  Test test{Driver(hardware ? find_in_libcuda : ptx_driver_function), words[1]};
  test.start();
  test.gemm();
  if (hardware) return 0;
  test.device_attributes();
  test.clusters();
  test.memory();
  test.races();
  test.variables();
  test.loading();
  test.tensor_maps();
}
