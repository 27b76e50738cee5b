// What every command works with: the options, the console and the line to the coordinator.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "client/console.h"
#include "client/options.h"

namespace lasp::client {

// Used by one thread.
class Session {
 public:
  // `console` must outlive it.
  Session(GlobalOptions options, Console* console)
      : options_(std::move(options)), console_(console) {}

  const GlobalOptions& options() const { return options_; }

  Console& console() { return *console_; }

  // `projects/{project}`.
  std::string ProjectName() const { return "projects/" + options_.project; }

  // Opens the line on the first call.
  absl::StatusOr<Connection*> Connect();

 private:
  const GlobalOptions options_;
  Console* const console_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace lasp::client
