#include "proto/spec/path_check.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/spec/spec_limits.h"

namespace lasp {

bool CheckPath(absl::string_view field, absl::string_view path, FieldChecker* check) {
  if (path.empty()) {
    return check->Refuse(field, "is empty: name a file");
  }
  if (path.size() > kMaxPathBytes) {
    return check->Refuse(field, absl::StrCat("has ", path.size(), " bytes: at most ", kMaxPathBytes,
                                             ", name a shorter path"));
  }
  if (std::any_of(path.begin(), path.end(),
                  [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); })) {
    return check->Refuse(field, "holds a NUL or another control character: rename the file");
  }
  for (const absl::string_view segment : absl::StrSplit(path, '/')) {
    if (segment == "..") {
      return check->Refuse(field,
                           "holds '..': name the file from one of the server's --path_roots down");
    }
  }
  return true;
}

bool CheckPaths(absl::string_view field,
                const google::protobuf::RepeatedPtrField<std::string>& paths, FieldChecker* check) {
  if (paths.size() > kMaxDataPaths) {
    return check->Refuse(field, absl::StrCat("has ", paths.size(), " entries: at most ",
                                             kMaxDataPaths, ", join files into larger ones"));
  }
  bool sound = true;
  for (int i = 0; i < paths.size(); ++i) {
    sound &= CheckPath(absl::StrCat(field, "[", i, "]"), paths.Get(i), check);
  }
  return sound;
}

}  // namespace lasp
