// A folder of a test's own, removed with all in it at the end.
#pragma once

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace lasp::testing {

class TempDirectory {
 public:
  TempDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lasp-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      std::perror("mkdtemp");
      std::abort();
    }
    path_ = pattern;
  }

  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }

  // The path of a file or folder in it.
  std::string Join(const std::string& name) const { return path_ + "/" + name; }

  // Writes a file and gives its path.
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Join(name), std::ios::binary) << content;
    return Join(name);
  }

 private:
  std::string path_;
};

}  // namespace lasp::testing
