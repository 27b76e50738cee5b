// Events as rows that come one by one: the columns keep their places.
#pragma once

#include <string>

#include "client/terminal.h"
#include "lasp/v1/event.pb.h"

namespace lasp::client {

// One row; before the first one a header. Safe to print, whatever the event says.
std::string EventRow(const lasp::v1::Event& event, const Terminal& terminal, bool with_header);

}  // namespace lasp::client
