#include "driver.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace dsa::cuda {

const char* Driver::load(void* (*find)(const char* name)) {
#define LOAD(name) \
  if (name = reinterpret_cast<decltype(name)>(find(#name)); !name) return #name
  LOAD(cuInit);
  LOAD(cuGetErrorName);
  LOAD(cuGetErrorString);
  LOAD(cuDeviceGet);
  LOAD(cuDeviceGetAttribute);
  LOAD(cuDevicePrimaryCtxRetain);
  LOAD(cuCtxGetCurrent);
  LOAD(cuCtxSetCurrent);
  LOAD(cuLibraryLoadFromFile);
  LOAD(cuLibraryGetKernel);
  LOAD(cuLibraryGetKernelCount);
  LOAD(cuLibraryEnumerateKernels);
  LOAD(cuKernelGetFunction);
  LOAD(cuFuncLoad);
  LOAD(cuKernelSetAttribute);
  LOAD(cuLaunchKernelEx);
  LOAD(cuTensorMapEncodeTiled);
#undef LOAD
  return nullptr;
}

const Driver& hardware_driver() {
  static const Driver driver = [] {
    static void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) throw std::runtime_error("there is no NVIDIA driver: libcuda.so.1 is not found");
    Driver d;
    if (const char* missing = d.load([](const char* name) { return dlsym(library, name); }))
      throw std::runtime_error(std::string("the NVIDIA driver is too old: it has no ") + missing +
                               ". CUDA 12.8 or newer is needed");
    return d;
  }();
  return driver;
}

}  // namespace dsa::cuda
