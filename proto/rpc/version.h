// What this build is.
#pragma once

namespace lasp {

// For example "0.1.0".
const char* Version();
// The commit it was built from, or "unknown".
const char* Revision();

}  // namespace lasp
