#include "server/console/api_route.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "server/valid_utf8.h"

namespace lasp::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kPrefix[] = "/api/v1/";

bool Matches(const ApiRoute& route, const std::vector<absl::string_view>& parts) {
  const std::vector<absl::string_view> pattern = absl::StrSplit(route.path, '/');
  if (pattern.size() != parts.size()) {
    return false;
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (pattern[i] == "*" ? parts[i].empty() : pattern[i] != parts[i]) {
      return false;
    }
  }
  return true;
}

absl::Status SetNumber(const std::string& text, const FieldDescriptor* field, Message* request) {
  const google::protobuf::Reflection* reflection = request->GetReflection();
  if (int32_t small = 0;
      field->type() == FieldDescriptor::TYPE_INT32 && absl::SimpleAtoi(text, &small)) {
    reflection->SetInt32(request, field, small);
    return absl::OkStatus();
  }
  if (int64_t large = 0;
      field->type() == FieldDescriptor::TYPE_INT64 && absl::SimpleAtoi(text, &large)) {
    reflection->SetInt64(request, field, large);
    return absl::OkStatus();
  }
  return InvalidFields({{field->name(), "is not a whole number"}}, "INVALID_REQUEST");
}

absl::Status SetParameter(const ApiRoute& route, const std::string& name, const std::string& value,
                          Message* request) {
  const FieldDescriptor* field = request->GetDescriptor()->FindFieldByName(name);
  const bool known = field != nullptr && !field->is_repeated() &&
                     (route.resource_field == nullptr || name != route.resource_field) &&
                     (field->type() == FieldDescriptor::TYPE_STRING ||
                      field->type() == FieldDescriptor::TYPE_INT32 ||
                      field->type() == FieldDescriptor::TYPE_INT64);
  if (!known) {
    return InvalidFields({{ValidUtf8(name.substr(0, 80)), "is no parameter of this path"}},
                         "INVALID_REQUEST");
  }
  if (field->type() != FieldDescriptor::TYPE_STRING) {
    return SetNumber(value, field, request);
  }
  if (ValidUtf8(value) != value) {
    return InvalidFields({{name, "is not UTF-8"}}, "INVALID_REQUEST");
  }
  request->GetReflection()->SetString(request, field, value);
  return absl::OkStatus();
}

const google::protobuf::MethodDescriptor* FindMethod(absl::string_view path) {
  const std::vector<std::string> names = absl::StrSplit(absl::StripPrefix(path, "/"), '/');
  return google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
      absl::StrJoin(names, "."));
}

}  // namespace

const std::vector<ApiRoute>& ApiRoutes() {
  static const auto* const routes = new std::vector<ApiRoute>{
      {"server", nullptr, 0, "/lasp.v1.ServerService/GetServerInfo"},
      {"projects/*/trainingJobs", "parent", 2, "/lasp.v1.TrainingJobService/ListTrainingJobs"},
      {"projects/*/trainingJobs/*", "name", 4, "/lasp.v1.TrainingJobService/GetTrainingJob"},
      {"projects/*/trainingJobs/*/metrics", "name", 4, "/lasp.v1.MetricsService/QueryMetrics"},
      {"projects/*/trainingJobs/*/logs", "name", 4, "/lasp.v1.LogService/StreamLogs"},
      {"workers", nullptr, 0, "/lasp.v1.WorkerAdminService/ListWorkers"},
      {"workers/*", "name", 2, "/lasp.v1.WorkerAdminService/GetWorker"},
  };
  return *routes;
}

absl::StatusOr<ApiCall> ParseApiCall(absl::string_view path, const NamedValues& parameters) {
  const std::vector<absl::string_view> parts = absl::ConsumePrefix(&path, kPrefix)
                                                   ? absl::StrSplit(path, '/')
                                                   : std::vector<absl::string_view>();
  for (const ApiRoute& route : ApiRoutes()) {
    if (!Matches(route, parts)) {
      continue;
    }
    ApiCall call;
    call.route = &route;
    call.method = FindMethod(route.method);
    call.request.reset(google::protobuf::MessageFactory::generated_factory()
                           ->GetPrototype(call.method->input_type())
                           ->New());
    std::set<absl::string_view> seen;
    for (const auto& [name, value] : parameters) {
      absl::Status status = seen.insert(name).second
                                ? SetParameter(route, name, value, call.request.get())
                                : InvalidFields({{name, "is there twice"}}, "INVALID_REQUEST");
      if (!status.ok()) {
        return status;
      }
    }
    if (route.resource_field != nullptr) {
      const std::string resource =
          absl::StrJoin(parts.begin(), parts.begin() + route.resource_parts, "/");
      if (ValidUtf8(resource) != resource) {
        return InvalidFields({{route.resource_field, "is not UTF-8"}}, "INVALID_REQUEST");
      }
      call.request->GetReflection()->SetString(
          call.request.get(), call.request->GetDescriptor()->FindFieldByName(route.resource_field),
          resource);
    }
    return call;
  }
  return ErrorWithReason(absl::StatusCode::kNotFound,
                         "the console has no such path: its pages begin at /", "NO_SUCH_PATH");
}

}  // namespace lasp::server
