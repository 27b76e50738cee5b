// Whether a caller may do what it asks for: authentication by token, authorisation by the table.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/access_table.h"
#include "server/credentials.h"

namespace lasp::server {

// Thread-safe. `credentials`, which must have tokens, outlives it.
class AccessControl {
 public:
  explicit AccessControl(const Credentials* credentials) : credentials_(credentials) {}

  // What the token in these values of the `authorization` header allows. UNAUTHENTICATED with
  // reason TOKEN_MISSING, TOKEN_UNKNOWN or TOKEN_EXPIRED.
  absl::StatusOr<GrantPtr> Authenticate(const std::vector<absl::string_view>& authorization,
                                        absl::Time now) const;

  // PERMISSION_DENIED with reason ROLE_TOO_LOW or PROJECT_NOT_GRANTED, naming the role and the
  // project; INVALID_ARGUMENT where `resource`, the request's name or parent, lies in no project
  // and the rule asks for one.
  static absl::Status Authorize(const Grant& grant, const AccessRule& rule,
                                absl::string_view resource);

  // What the token of this name allows now; nothing where it has been revoked or has ended.
  GrantPtr Present(absl::string_view name, absl::Time now) const;

  // Whether the token that this was granted to, whatever its name by now, still allows the same.
  bool Holds(const Grant& grant, absl::Time now) const;

 private:
  const Credentials* const credentials_;
};

}  // namespace lasp::server
