// What a spec may give as paths of files.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "proto/spec/field_checker.h"

namespace lasp {

// Refuses `field` unless it could name a file beneath a root: not empty, not too long, without
// control characters and "..". Nothing is opened. Returns whether it is sound.
bool CheckPath(absl::string_view field, absl::string_view path, FieldChecker* check);

// The same for every entry, and at most kMaxDataPaths of them.
bool CheckPaths(absl::string_view field,
                const google::protobuf::RepeatedPtrField<std::string>& paths, FieldChecker* check);

}  // namespace lasp
