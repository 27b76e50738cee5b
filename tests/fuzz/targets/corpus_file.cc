// Headers of corpora: what one promises lies in the file.
#include "proto/spec/corpus_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/spec/vocabulary_probe.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_directory.h"

namespace {

// A new file each time: some file systems flush one that was cut to nothing and written again.
void Rewrite(const lasp::testing::TempDirectory& folder, const std::string& name,
             absl::string_view bytes) {
  std::filesystem::remove(folder.Join(name));
  folder.Write(name, std::string(bytes));
}

}  // namespace

namespace lasp {

// The first byte is the format; for Megatron the second is the length of the .bin, by which the
// index must be borne out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const folder = new testing::TempDirectory;
  absl::string_view bytes = fuzz::ToText(data, size);
  constexpr v1::DataSpec::Format kFormats[] = {
      v1::DataSpec::FORMAT_BYTES, v1::DataSpec::FORMAT_UINT16, v1::DataSpec::FORMAT_LLMC,
      v1::DataSpec::FORMAT_MEGATRON};
  const auto format = kFormats[fuzz::TakeChoice(&bytes) % std::size(kFormats)];
  if (format == v1::DataSpec::FORMAT_MEGATRON) {
    Rewrite(*folder, "corpus.bin", std::string(fuzz::TakeChoice(&bytes), '\1'));
    Rewrite(*folder, "corpus.idx", bytes);
  } else {
    Rewrite(*folder, "corpus.bin", bytes);
  }
  for (const CorpusCheck check : {CorpusCheck::kFull, CorpusCheck::kQuick}) {
    const auto file = OpenCorpusFile("corpus.bin", format, {folder->path()}, check);
    if (!file.ok()) {
      fuzz::Require(!file.status().message().empty(), "a refusal says why");
      continue;
    }
    fuzz::Require(file->token_count > 0, "a corpus has tokens");
    fuzz::Require(
        file->data_offset + file->token_count * TokenBytes(file->type) <= file->identity.size,
        "the tokens lie in the file");
    (void)ProbeVocabulary(*file, 256);
  }
  return 0;
}

}  // namespace lasp
