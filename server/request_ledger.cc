#include "server/request_ledger.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

namespace lasp::server {

uint64_t Fingerprint(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    // Maps in order of their keys.
    output.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&output);
  }
  // FNV-1a: it tells a client's own mistake from its own repetition, nothing more.
  uint64_t hash = 14695981039346656037U;
  for (const char c : bytes) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  }
  return hash;
}

const PutRequest* RequestLedger::Find(const std::string& key) const {
  const auto found = requests_.find(key);
  return found == requests_.end() ? nullptr : &found->second;
}

void RequestLedger::Add(PutRequest request) {
  const absl::Time expire_time = request.expire_time;
  std::string key = request.key;
  const auto [position, added] = requests_.emplace(std::move(key), std::move(request));
  if (added) {
    by_expiry_.emplace(expire_time, &position->first);
  }
  if (requests_.size() > kMaxRequests) {
    RemoveOldest();
  }
}

bool RequestLedger::Expire(absl::Time now) {
  bool any = false;
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) {
    RemoveOldest();
    any = true;
  }
  return any;
}

void RequestLedger::RemoveOldest() {
  // The set points into the map: its entry goes first, and the key is copied for the erasure.
  const std::string key = *by_expiry_.begin()->second;
  by_expiry_.erase(by_expiry_.begin());
  requests_.erase(key);
}

}  // namespace lasp::server
