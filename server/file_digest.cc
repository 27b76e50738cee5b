#include "server/file_digest.h"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "server/store_error.h"

namespace lasp::server {

absl::StatusOr<std::string> FileDigest(const std::string& path) {
  constexpr size_t kBlock = size_t{1} << 20;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return StoreUnavailable("read", path, errno);
  }
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<char> block(kBlock);
  while (file.read(block.data(), std::ssize(block)) || file.gcount() > 0) {
    EVP_DigestUpdate(context.get(), block.data(), static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) {
    return StoreUnavailable("read", path, EIO);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size});
}

}  // namespace lasp::server
