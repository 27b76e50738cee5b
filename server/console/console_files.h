// The console's page: the files of server/console/page, compiled in.
#pragma once

#include "absl/strings/string_view.h"

namespace lasp::server {

struct ConsoleFile {
  // As the browser asks for it: `/` for the page itself.
  const char* path;
  const char* content_type;
  const unsigned char* bytes;
  size_t size;

  absl::string_view text() const { return {reinterpret_cast<const char*>(bytes), size}; }
};

// Null where there is none.
const ConsoleFile* FindConsoleFile(absl::string_view path);

}  // namespace lasp::server
