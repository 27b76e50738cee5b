// Whatever is asked wrongly, of whichever method, the error says why in a form programs can read.
#include <google/protobuf/dynamic_message.h>

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "lasp/v1/worker_service.grpc.pb.h"
#include "tests/server/services/raw_call.h"
#include "tests/server/services/running_server.h"
#include "tests/server/services/scrape.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kUnknownName[] = "projects/default/trainingJobs/none-such";

// Every field of `message` that can be wrong is.
void FillBadly(google::protobuf::Message* message, int depth = 0) {
  using google::protobuf::FieldDescriptor;
  const auto& reflection = *message->GetReflection();
  const auto& descriptor = *message->GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    if (field->is_repeated()) {
      continue;
    }
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.SetString(message, field, field->name() == "name" ? kUnknownName : "no good!");
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.SetInt32(message, field, -1);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, -1);
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth < 4) {
          FillBadly(reflection.MutableMessage(message, field), depth + 1);
        }
        break;
      default:
        break;
    }
  }
}

class ErrorInfoTest : public ::testing::Test {
 protected:
  // `status` carries one ErrorInfo with a reason of the form and the domain of ours.
  static void ExpectErrorInfo(const absl::Status& status, const std::string& where) {
    ASSERT_FALSE(status.ok()) << where;
    const auto payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo");
    ASSERT_TRUE(payload.has_value()) << where << ": " << status;
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(info.ParseFromString(std::string(*payload))) << where;
    EXPECT_EQ(info.domain(), kErrorDomain) << where;
    EXPECT_FALSE(info.reason().empty()) << where << ": " << status;
    for (const char letter : info.reason()) {
      EXPECT_TRUE(absl::ascii_isupper(letter) || absl::ascii_isdigit(letter) || letter == '_')
          << where << ": " << info.reason();
    }
    EXPECT_FALSE(status.message().empty()) << where;
  }

  RunningServer server_;
  const std::shared_ptr<grpc::Channel> api_ = NewChannel(server_.server().addresses().api_address);
  const std::shared_ptr<grpc::Channel> worker_plane_ =
      NewChannel(server_.server().addresses().worker_address);
};

TEST_F(ErrorInfoTest, EveryMethodSaysWhy) {
  // What cannot be asked wrongly.
  const std::set<std::string> always_answered = {"/lasp.v1.ServerService/GetServerInfo",
                                                 "/lasp.v1.BackupService/CreateBackup",
                                                 "/lasp.v1.BackupService/ListBackups"};
  int methods = 0;
  for (const char* file : {"training_job_service", "checkpoint_service", "metrics_service",
                           "log_service", "event_service", "worker_admin_service", "server_service",
                           "audit_service", "backup_service", "worker_service"}) {
    const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(
        absl::StrCat("lasp/v1/", file, ".proto"));
    ASSERT_NE(descriptor, nullptr) << file;
    const auto& service = *descriptor->service(0);
    const bool worker_plane = service.name() == "WorkerService";
    const auto& channel = worker_plane ? worker_plane_ : api_;
    for (int i = 0; i < service.method_count(); ++i, ++methods) {
      const std::string method =
          absl::StrCat("/", service.full_name(), "/", service.method(i)->name());
      google::protobuf::DynamicMessageFactory factory;
      const std::unique_ptr<google::protobuf::Message> bad(
          factory.GetPrototype(service.method(i)->input_type())->New());
      FillBadly(bad.get());
      if (!always_answered.contains(method)) {
        ExpectErrorInfo(RawCall(channel, method, bad->SerializeAsString()).status(), method);
      }
      const auto bare = RawCall(channel, method, "");
      if (!bare.ok()) {
        ExpectErrorInfo(bare.status(), method + " of an empty request");
      }
      if (!service.method(i)->client_streaming()) {
        const absl::Status garbled = RawCall(channel, method, std::string(100, '\xff')).status();
        ExpectErrorInfo(garbled, method + " of garbage");
        EXPECT_EQ(garbled.code(), absl::StatusCode::kInvalidArgument) << garbled;
        EXPECT_THAT(garbled.message(), HasSubstr(service.method(i)->input_type()->name()));
      }
      // The other port does not serve it, and says which port it is.
      const absl::Status astray = RawCall(worker_plane ? api_ : worker_plane_, method, "").status();
      ExpectErrorInfo(astray, method + " on the other port");
      EXPECT_THAT(astray, StatusIs(absl::StatusCode::kUnimplemented,
                                   HasSubstr(worker_plane ? "--api_address" : "--worker_address")));
    }
  }
  EXPECT_GE(methods, 27);
  // They are counted as they were sent.
  EXPECT_THAT(Scrape(server_.server().addresses().metrics_address),
              HasSubstr("grpc_server_handled_total{grpc_code=\"InvalidArgument\","
                        "grpc_method=\"GetServerInfo\""));
}

TEST_F(ErrorInfoTest, SoDoPortsAskedForWhatNobodyServes) {
  for (const std::string& address :
       {server_.server().addresses().api_address, server_.server().addresses().worker_address,
        server_.server().addresses().health_address}) {
    const absl::Status status =
        RawCall(NewChannel(address), "/lasp.v1.TrainingJobService/Explode", "").status();
    ExpectErrorInfo(status, address);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("Explode")));
  }
}

}  // namespace
}  // namespace lasp::server
