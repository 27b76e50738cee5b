// What the console's JSON interface has: one row a path, each the reading of one gRPC method.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/console/http_message.h"

namespace lasp::server {

struct ApiRoute {
  // Below /api/v1/; a `*` stands for one part of it.
  const char* path;
  // The field of the request that takes the resource's name, and how many parts of the path that
  // is; null where the request names none.
  const char* resource_field;
  int resource_parts;
  // /package.Service/Method: who may call it says its row of the access table.
  const char* method;
};

const std::vector<ApiRoute>& ApiRoutes();

// One call to make.
struct ApiCall {
  const ApiRoute* route = nullptr;
  const google::protobuf::MethodDescriptor* method = nullptr;
  std::unique_ptr<google::protobuf::Message> request;
};

// The call that a path and its query name: the query's parameters are fields of the request, texts
// and whole numbers. NOT_FOUND (NO_SUCH_PATH); INVALID_ARGUMENT (INVALID_REQUEST) naming the
// parameter that there is not, that is there twice or whose value is not of its kind.
absl::StatusOr<ApiCall> ParseApiCall(absl::string_view path, const NamedValues& parameters);

}  // namespace lasp::server
