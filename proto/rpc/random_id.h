// Identifiers from the operating system's random source.
#pragma once

#include <string>

namespace lasp {

// A random UUID (version 4), for example 5b0e8d1c-….
std::string NewUuid();
// `length` characters of [a-z0-9], the first a letter: the end of a generated job id.
std::string NewIdSuffix(int length);

}  // namespace lasp
