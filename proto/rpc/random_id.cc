#include "proto/rpc/random_id.h"

#include <sys/random.h>

#include <array>
#include <cstdlib>

#include "absl/strings/str_format.h"

namespace lasp {
namespace {

template <size_t kSize>
std::array<unsigned char, kSize> RandomBytes() {
  std::array<unsigned char, kSize> bytes{};
  // getrandom of at most 256 bytes is never cut short once the pool is ready.
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  return bytes;
}

}  // namespace

std::string NewUuid() {
  auto b = RandomBytes<16>();
  b[6] = static_cast<unsigned char>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<unsigned char>((b[8] & 0x3f) | 0x80);
  return absl::StrFormat("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                         b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                         b[12], b[13], b[14], b[15]);
}

std::string NewIdSuffix(int length) {
  constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  const auto bytes = RandomBytes<64>();
  std::string id;
  for (int i = 0; i < length && i < 64; ++i) {
    id += kAlphabet[bytes[static_cast<size_t>(i)] % (i == 0 ? 26 : 36)];
  }
  return id;
}

}  // namespace lasp
