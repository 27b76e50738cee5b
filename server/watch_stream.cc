#include "server/watch_stream.h"

#include "proto/rpc/status_macros.h"
#include "server/job_list.h"

namespace lasp::server {
namespace {

// Changes looked at in one pull, and so held by a slow reader.
constexpr int kBatch = 64;
// A message of several events ends where it has grown to this.
constexpr size_t kMaxBatchBytes = 256 << 10;

// Gathers events into messages.
class MessageBuilder {
 public:
  MessageBuilder(bool batched, std::vector<grpc::ByteBuffer>* messages)
      : batched_(batched), messages_(*messages) {}

  // `resume_token` is that of the event; a function, for most are not asked.
  template <typename Token>
  void Add(grpc::Slice event, const Token& resume_token) {
    if (!batched_) {
      messages_.push_back(WatchEncoder::Single(event));
      return;
    }
    bytes_ += event.size();
    events_.push_back(std::move(event));
    if (bytes_ >= kMaxBatchBytes) {
      Flush(resume_token());
    }
  }

  void Flush(const std::string& resume_token) {
    if (events_.size() == 1) {
      messages_.push_back(WatchEncoder::Single(events_[0]));
    } else if (!events_.empty()) {
      messages_.push_back(WatchEncoder::Batch(events_, resume_token));
    }
    events_.clear();
    bytes_ = 0;
  }

 private:
  const bool batched_;
  std::vector<grpc::ByteBuffer>& messages_;
  std::vector<grpc::Slice> events_;
  size_t bytes_ = 0;
};

}  // namespace

WatchStream::WatchStream(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                         WatchEncoder* encoder, WatchScope scope)
    : PullStream(streams, pool, slow_reader_limit), encoder_(encoder), scope_(std::move(scope)) {}

absl::Status WatchStream::Subscribe(WatchHub* hub, const std::string& resume_token) {
  LASP_ASSIGN_OR_RETURN(watch_, hub->Subscribe(resume_token, [this] { Wake(); }));
  hub_ = hub;
  if (!resume_token.empty()) {
    selected_.Resume();
  }
  return absl::OkStatus();
}

std::optional<absl::Status> WatchStream::Pull(std::vector<grpc::ByteBuffer>* batch) {
  // A selective filter passes over many changes before it finds one to send.
  while (batch->empty()) {
    const absl::StatusOr<WatchBatch> found = watch_->Next(kBatch);
    if (!found.ok()) {
      return found.status();
    }
    MessageBuilder messages(scope_.batched, batch);
    for (const JobChange& change : found->changes) {
      if (std::optional<grpc::Slice> event = EventOf(change)) {
        messages.Add(*std::move(event), [&] { return hub_->ResumeToken(change.revision); });
      }
    }
    if (found->bookmark) {
      messages.Add(WatchEncoder::Bookmark(found->snapshot_end, found->resume_token),
                   [&] { return found->resume_token; });
    }
    messages.Flush(found->resume_token);
    if (found->changes.empty()) {
      break;
    }
  }
  return std::nullopt;
}

std::optional<grpc::Slice> WatchStream::EventOf(const JobChange& change) {
  const bool deleted = change.job == nullptr;
  const std::string& name = deleted ? change.deleted_name : change.job->job.name();
  if (!InProject(name, scope_.project) || !scope_.grant->MaySeeJob(name)) {
    return std::nullopt;
  }
  if (deleted) {
    selected_.Forget(name);
    return encoder_->Change(change);
  }
  const bool selected = scope_.filter.Matches(change.job->job);
  const bool had = scope_.filter.may_change() && selected_.Exchange(name, selected);
  if (selected) {
    return encoder_->Change(change);
  }
  return had ? std::make_optional(encoder_->Removal(change)) : std::nullopt;
}

}  // namespace lasp::server
