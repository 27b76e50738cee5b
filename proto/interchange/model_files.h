// Where the files of a model's folder are opened.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/path_lookup.h"

namespace lasp {

// The regular file `name` of one folder, open for reading: codes as OpenBeneathRoots. Thread-safe.
using ModelFileOpener = std::function<absl::StatusOr<OpenedFile>(const std::string& name)>;

// Of a user's own folder.
ModelFileOpener FilesOfFolder(std::string folder);

// Of a folder that a job names: looked up as its data are, and opened beneath the roots alone. The
// first root that has its config.json has all of it.
ModelFileOpener FilesBeneathRoots(std::string folder, std::vector<std::string> path_roots);

}  // namespace lasp
