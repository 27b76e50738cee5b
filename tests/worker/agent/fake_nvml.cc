// A driver's management library for tests: a shared object of the real one's name and functions,
// which describes the host that LASP_FAKE_NVML names, entries `key=value` separated by spaces:
//   init      what nvmlInit_v2 gives (an nvmlReturn_t)
//   gpus      how many there are
//   mig, lost, old, denied   the index of a GPU in MIG mode, off the bus, of the generation before,
//             or that may not be opened
//   links     pairs (0-1, 2-3 by two links each), switch (all at a switch, GPU 3 by fewer) or mute
//             (as switch, and nobody tells what is at the other end); none by default
//   apart     the index of a GPU that no other reaches
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "worker/agent/nvml.h"

namespace {

using lasp::worker::kNvmlDriverNotLoaded;
using lasp::worker::kNvmlNoPermission;
using lasp::worker::kNvmlNotSupported;
using lasp::worker::kNvmlPeerByNvlink;
using lasp::worker::kNvmlSuccess;
using lasp::worker::NvmlDevice;
using lasp::worker::NvmlMemory;
using lasp::worker::NvmlPciInfo;

constexpr int kNotInitialized = 1;
constexpr int kInvalidArgument = 2;
constexpr int kTooSmall = 7;
constexpr int kLost = 15;
constexpr int kSwitch = 2;
constexpr int kNoPeer = 5;

int initialized = 0;

std::string Setting(const std::string& key) {
  const char* const all = std::getenv("LASP_FAKE_NVML");
  const std::string text = std::string(" ") + (all == nullptr ? "" : all) + " ";
  const size_t at = text.find(" " + key + "=");
  if (at == std::string::npos) {
    return "";
  }
  const size_t begin = at + key.size() + 2;
  return text.substr(begin, text.find(' ', begin) - begin);
}

int Number(const std::string& key) {
  const std::string value = Setting(key);
  return value.empty() ? -1 : std::atoi(value.c_str());
}

// What handles point at.
char places[64] = {};

int IndexOf(NvmlDevice device) {
  return static_cast<int>(reinterpret_cast<const char*>(device) - places);
}

int Write(const std::string& text, char* out, unsigned int size) {
  if (text.size() + 1 > size) {
    return kTooSmall;
  }
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kNvmlSuccess;
}

NvmlPciInfo PlaceOf(int index) {
  NvmlPciInfo place;
  place.domain = 1;
  place.bus = 0x18U + static_cast<unsigned int>(index);
  std::snprintf(place.bus_id, sizeof(place.bus_id), "%08X:%02X:%02X.0", place.domain, place.bus,
                place.device);
  return place;
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are NVML's
extern "C" {

int nvmlInit_v2() {
  const int result = Number("init");
  if (result > 0) {
    return result;
  }
  ++initialized;
  return kNvmlSuccess;
}

int nvmlSystemGetDriverVersion(char* version, unsigned int size) {
  std::snprintf(version, size, "580.65.06");
  return kNvmlSuccess;
}

int nvmlShutdown() {
  --initialized;
  return kNvmlSuccess;
}

// How often it is initialised and not shut down; the real one has no such function.
int FakeNvmlInitialized() { return initialized; }

const char* nvmlErrorString(int result) {
  return result == kNvmlDriverNotLoaded ? "Driver Not Loaded" : "Some Error";
}

int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = static_cast<unsigned int>(std::max(0, Number("gpus")));
  return initialized > 0 ? kNvmlSuccess : kNotInitialized;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, NvmlDevice* device) {
  const int number = static_cast<int>(index);
  if (number >= Number("gpus")) {
    return kInvalidArgument;
  }
  if (number == Number("denied")) {
    return kNvmlNoPermission;
  }
  *device = reinterpret_cast<NvmlDevice>(&places[number]);
  return number == Number("lost") ? kLost : kNvmlSuccess;
}

int nvmlDeviceGetUUID(NvmlDevice device, char* uuid, unsigned int size) {
  return Write("GPU-0000000" + std::to_string(IndexOf(device)), uuid, size);
}

int nvmlDeviceGetName(NvmlDevice device, char* name, unsigned int size) {
  return Write(IndexOf(device) == Number("old") ? "NVIDIA A100" : "NVIDIA H200", name, size);
}

int nvmlDeviceGetMemoryInfo(NvmlDevice /*device*/, NvmlMemory* memory) {
  *memory = {.total = uint64_t{141} << 30, .free = uint64_t{140} << 30, .used = uint64_t{1} << 30};
  return kNvmlSuccess;
}

int nvmlDeviceGetPciInfo_v3(NvmlDevice device, NvmlPciInfo* pci) {
  *pci = PlaceOf(IndexOf(device));
  return kNvmlSuccess;
}

int nvmlDeviceGetMigMode(NvmlDevice device, unsigned int* now, unsigned int* pending) {
  if (Number("mig") < 0) {
    return kNvmlNotSupported;
  }
  *now = IndexOf(device) == Number("mig") ? 1 : 0;
  *pending = *now;
  return kNvmlSuccess;
}

int nvmlDeviceGetCudaComputeCapability(NvmlDevice device, int* major, int* minor) {
  *major = IndexOf(device) == Number("old") ? 8 : 9;
  *minor = 0;
  return kNvmlSuccess;
}

int nvmlDeviceGetNvLinkState(NvmlDevice device, unsigned int link, int* active) {
  const std::string links = Setting("links");
  if (links.empty()) {
    return kNvmlNotSupported;
  }
  const unsigned int most = links == "pairs" ? 2U : (IndexOf(device) == 3 ? 16U : 18U);
  *active = link < most ? 1 : 0;
  return kNvmlSuccess;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(NvmlDevice /*device*/, unsigned int /*link*/, int* kind) {
  const std::string links = Setting("links");
  *kind = links == "switch" ? kSwitch : 0;
  return links == "mute" ? kNvmlNotSupported : kNvmlSuccess;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(NvmlDevice device, unsigned int /*link*/,
                                        NvmlPciInfo* pci) {
  if (Setting("links") != "pairs") {
    return kNvmlNotSupported;
  }
  *pci = PlaceOf(IndexOf(device) ^ 1);
  return kNvmlSuccess;
}

int nvmlDeviceGetP2PStatus(NvmlDevice a, NvmlDevice b, int capability, int* status) {
  const bool reached = capability == kNvmlPeerByNvlink && !Setting("links").empty() &&
                       IndexOf(a) != Number("apart") && IndexOf(b) != Number("apart");
  *status = reached ? 0 : kNoPeer;
  return kNvmlSuccess;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
