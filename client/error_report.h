// What the person sees of an error: `error: <what>: <why>`, a line for each field that is wrong, a
// hint, and the request's id where it helps to find out what became of it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/terminal.h"

namespace lasp::client {

// The same error with a hint: what to do next, a sentence without a full stop. Replaces an older
// one.
absl::Status WithHint(absl::Status status, absl::string_view hint);
// The same error with the id of the request that met it.
absl::Status WithRequestId(absl::Status status, absl::string_view request_id);

// The coordinator does not answer: the whole sentence stands in the message.
absl::Status Unreachable(absl::string_view address, absl::string_view why);

// The lines of the report, without a line break at the end. `what` is what the person asked for,
// for example "submit".
std::string ErrorReport(absl::string_view what, const absl::Status& status,
                        const Terminal& terminal, bool verbose);

}  // namespace lasp::client
