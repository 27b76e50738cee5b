// The command line's contexts: the user's own file, and its secrets are not shown.
#include "client/context_file.h"

#include <sys/stat.h>

#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_directory.h"

namespace lasp {

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const folder = new testing::TempDirectory;
  static const std::string path = [] {
    std::string made = folder->Write("config.yaml", "");
    chmod(made.c_str(), 0600);
    return made;
  }();
  folder->Write("config.yaml", std::string(fuzz::ToText(data, size)));
  const auto file = client::ContextFile::Load(path);
  if (file.ok()) {
    (void)client::YamlText(file->ToDocument(/*hide=*/true));
    const std::string saved = folder->Join("saved");
    if (file->Save(saved).ok()) {
      const auto again = client::ContextFile::Load(saved);
      fuzz::Require(again.ok(), "what was saved can be read");
      fuzz::Require(
          client::YamlText(again->ToDocument(false)) == client::YamlText(file->ToDocument(false)),
          "what was saved is the same");
    }
  }
  return 0;
}

}  // namespace lasp
