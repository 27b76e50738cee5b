// Log lines for people.
#pragma once

#include <string>

#include "lasp/v1/log_service.pb.h"

namespace lasp::client {

// What a rank logs is one JSON object a line: on a terminal it becomes `20:18:04 info ready
// parameters=106496 …` without what every line repeats. Other lines stay as they are. Never holds
// control characters.
std::string ReadableLogText(const lasp::v1::LogLine& line);

}  // namespace lasp::client
