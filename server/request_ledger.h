// The requests of the last day and their answers, so that a repeated one is not carried out twice.
#pragma once

#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/time/time.h"
#include "server/job_store.h"

namespace lasp::server {

// Of a message's content; the same in every run of the program.
uint64_t Fingerprint(const google::protobuf::MessageLite& message);

// The controller's thread only.
class RequestLedger {
 public:
  // Null where the request is new.
  const PutRequest* Find(const std::string& key) const;
  void Add(PutRequest request);
  // Forgets what has expired; true where there was something.
  bool Expire(absl::Time now);

  size_t size() const { return requests_.size(); }

 private:
  // Beyond it the oldest go before their time: memory is bounded whatever users do.
  static constexpr size_t kMaxRequests = 200'000;

  void RemoveOldest();

  std::unordered_map<std::string, PutRequest> requests_;
  std::set<std::pair<absl::Time, const std::string*>> by_expiry_;
};

}  // namespace lasp::server
