#include "proto/checkpoint/block_digests.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <string>

#include "proto/spec/unique_fd.h"
#include "tests/support/status_matchers.h"

namespace lasp {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

std::string RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  std::mt19937_64 random(size);
  for (char& byte : bytes) {
    byte = static_cast<char>(random());
  }
  return bytes;
}

// A shard and the file it describes, which has no name.
struct Written {
  explicit Written(const std::string& bytes)
      : file(open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) {
    EXPECT_EQ(pwrite(file.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    BlockDigester digester;
    digester.Add(bytes.data(), bytes.size());
    shard.set_file("rank-0.safetensors");
    shard.set_size_bytes(static_cast<int64_t>(bytes.size()));
    shard.set_block_bytes(kCheckpointBlockBytes);
    shard.set_block_digests(digester.Finish());
  }

  absl::Status Check() const { return CheckShardFile(shard, file.get(), "there"); }

  UniqueFd file;
  lasp::v1::CheckpointShard shard;
};

TEST(BlockDigests, PiecesDoNotMatter) {
  const std::string bytes = RandomBytes(2 * kCheckpointBlockBytes + 12345);
  BlockDigester whole;
  whole.Add(bytes.data(), bytes.size());
  BlockDigester pieces;
  size_t size = 1;
  for (size_t begin = 0; begin < bytes.size(); size = size * 7 % 1'000'003 + 1) {
    const size_t part = std::min(size, bytes.size() - begin);
    pieces.Add(bytes.data() + begin, part);
    begin += part;
  }
  const std::string digests = whole.Finish();
  EXPECT_EQ(digests.size(), 3 * kBlockDigestBytes);
  EXPECT_EQ(digests, pieces.Finish());
  EXPECT_EQ(digests.substr(2 * kBlockDigestBytes),
            BlockDigest(bytes.data() + 2 * kCheckpointBlockBytes, 12345));
}

// The published digest of nothing: other tools can check our files.
TEST(BlockDigests, AreThoseOfXxh3) {
  EXPECT_EQ(BlockDigest("", 0), std::string("\x99\xaa\x06\xd3\x01\x47\x98\xd8"
                                            "\x60\x01\xc3\x24\x46\x8d\x49\x7f",
                                            16));
}

TEST(BlockDigests, AFileThatIsAsWrittenPasses) {
  for (const int64_t size : {int64_t{0}, int64_t{1}, kCheckpointBlockBytes - 1,
                             kCheckpointBlockBytes, kCheckpointBlockBytes + 1}) {
    const Written written(RandomBytes(static_cast<size_t>(size)));
    LASP_EXPECT_OK(written.Check());
  }
}

TEST(BlockDigests, OneFlippedBitIsFoundAndNamed) {
  const std::string bytes = RandomBytes(kCheckpointBlockBytes + 1000);
  const Written written(bytes);
  const char flipped = static_cast<char>(bytes[kCheckpointBlockBytes + 7] ^ 1);
  ASSERT_EQ(pwrite(written.file.get(), &flipped, 1, kCheckpointBlockBytes + 7), 1);
  EXPECT_THAT(written.Check(), StatusIs(absl::StatusCode::kDataLoss,
                                        HasSubstr("rank-0.safetensors is damaged in block 1")));
}

TEST(BlockDigests, AFileOfAnotherSizeIsFound) {
  const Written written(RandomBytes(1000));
  ASSERT_EQ(ftruncate(written.file.get(), 999), 0);
  EXPECT_THAT(written.Check(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("999 bytes, not the 1000")));
}

}  // namespace
}  // namespace lasp
