#include "tests/bench/control_plane/load_clients.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lasp/v1/log_service.grpc.pb.h"
#include "lasp/v1/training_job_service.grpc.pb.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/random_id.h"
#include "tests/bench/control_plane/bench_process.h"

namespace lasp::bench {
namespace {

v1::CreateTrainingJobRequest NewRequest(int64_t max_steps) {
  v1::CreateTrainingJobRequest request;
  request.set_parent("projects/default");
  v1::TrainingSpec& spec = *request.mutable_training_job()->mutable_spec();
  spec.mutable_model()->set_architecture(v1::ModelSpec::ARCHITECTURE_TRANSNORMER);
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_hidden_size(256);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_glu_size(704);
  spec.mutable_model()->set_vocab_size(256);
  spec.mutable_data()->add_train_paths("corpus.txt");
  spec.mutable_data()->set_format(v1::DataSpec::FORMAT_BYTES);
  spec.mutable_data()->set_sequence_length(2'048);
  spec.mutable_optimizer()->set_learning_rate(1e-3);
  spec.set_global_batch_size(1);
  spec.set_max_steps(max_steps);
  return request;
}

int64_t EventCount(const v1::WatchTrainingJobsResponse& response) {
  return std::max(1, response.batch().events_size());
}

int64_t EventCount(const v1::StreamLogsResponse& /*response*/) { return 1; }

// Runs until destroyed. Shares few connections with others of its kind, as users of one gateway do.
template <typename Stub, typename Response>
class StreamSet final : public Streams {
 public:
  class Reader final : public grpc::ClientReadReactor<Response> {
   public:
    explicit Reader(StreamSet* set) : set_(set) {}

    void Go() {
      this->StartRead(&response_);
      this->StartCall();
    }

    void OnReadDone(bool ok) override {
      if (ok) {
        set_->received_ += EventCount(response_);
        this->StartRead(&response_);
      }
    }

    void OnDone(const grpc::Status& status) override {
      if (!status.ok() && status.error_code() != grpc::StatusCode::CANCELLED) {
        std::fprintf(stderr, "a stream ended: %s\n", status.error_message().c_str());
      }
      MutexLock lock(&set_->mutex_);
      --set_->open_;
      set_->ended_.NotifyAll();
    }

    grpc::ClientContext context;

   private:
    StreamSet* const set_;
    Response response_;
  };

  explicit StreamSet(const std::string& api_address) {
    for (int i = 0; i < 4; ++i) {
      stubs_.push_back(Stub::NewStub(NewChannel(api_address)));
    }
  }

  ~StreamSet() override {
    for (const auto& reader : readers_) {
      reader->context.TryCancel();
    }
    MutexLock lock(&mutex_);
    while (open_ > 0) {
      ended_.Wait(&mutex_);
    }
  }

  template <typename Open>
  void Add(const Open& open) {
    readers_.push_back(std::make_unique<Reader>(this));
    {
      MutexLock lock(&mutex_);
      ++open_;
    }
    open(stubs_[readers_.size() % stubs_.size()].get(), readers_.back().get());
    readers_.back()->Go();
  }

  int64_t received() const override { return received_; }

  int open() const override {
    MutexLock lock(&mutex_);
    return open_;
  }

 private:
  std::vector<std::unique_ptr<typename Stub::Stub>> stubs_;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::atomic<int64_t> received_ = 0;
  mutable Mutex mutex_;
  CondVar ended_;
  int open_ GUARDED_BY(mutex_) = 0;
};

}  // namespace

double SubmitResult::Quantile(double q) const {
  return milliseconds.empty()
             ? 0
             : milliseconds[static_cast<size_t>(q * static_cast<double>(milliseconds.size() - 1))];
}

SubmitResult Submit(const std::string& api_address, const SubmitLoad& load) {
  std::vector<SubmitResult> parts(static_cast<size_t>(load.submitters));
  std::vector<std::thread> threads;
  threads.reserve(parts.size());
  std::atomic<int64_t> jobs = 0;
  const absl::Time start = absl::Now();
  for (SubmitResult& part : parts) {
    threads.emplace_back([&part, &api_address, &load, &jobs, start] {
      const auto stub = v1::TrainingJobService::NewStub(NewChannel(api_address));
      v1::CreateTrainingJobRequest request = NewRequest(load.min_steps);
      while (absl::Now() < start + load.duration) {
        const int64_t number = jobs++;
        if (number >= load.max_jobs) {
          return;
        }
        request.mutable_training_job()->mutable_spec()->set_max_steps(
            load.min_steps + number * 7 % (load.max_steps - load.min_steps + 1));
        request.set_request_id(NewUuid());
        request.set_training_job_id(absl::StrCat("job-", NewIdSuffix(16)));
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
        v1::TrainingJob job;
        const absl::Time sent = absl::Now();
        const grpc::Status status = stub->CreateTrainingJob(&context, request, &job);
        if (status.ok()) {
          part.milliseconds.push_back(absl::ToDoubleMilliseconds(absl::Now() - sent));
          part.names.push_back(job.name());
        } else if (load.ignore_errors) {
          return;
        } else if (part.errors++ == 0) {
          std::fprintf(stderr, "submit: %s\n", status.error_message().c_str());
        }
      }
    });
  }
  SubmitResult all;
  for (size_t i = 0; i < threads.size(); ++i) {
    threads[i].join();
    all.milliseconds.insert(all.milliseconds.end(), parts[i].milliseconds.begin(),
                            parts[i].milliseconds.end());
    all.names.insert(all.names.end(), parts[i].names.begin(), parts[i].names.end());
    all.errors += parts[i].errors;
  }
  all.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::sort(all.milliseconds.begin(), all.milliseconds.end());
  return all;
}

std::unique_ptr<Streams> Watch(const std::string& api_address, int count, int whole,
                               const std::vector<std::string>& names) {
  using Set = StreamSet<v1::TrainingJobService, v1::WatchTrainingJobsResponse>;
  auto set = std::make_unique<Set>(api_address);
  for (int i = 0; i < count; ++i) {
    v1::WatchTrainingJobsRequest request;
    request.set_parent("projects/default");
    // As `lasp watch` does.
    request.set_batched(i < whole);
    if (i >= whole) {
      request.set_filter(absl::StrCat("name=", names[static_cast<size_t>(i) % names.size()]));
    }
    set->Add([&request](v1::TrainingJobService::Stub* stub, Set::Reader* reader) {
      stub->async()->WatchTrainingJobs(&reader->context, &request, reader);
    });
  }
  return set;
}

std::unique_ptr<Streams> FollowLogs(const std::string& api_address,
                                    const std::vector<std::string>& names) {
  using Set = StreamSet<v1::LogService, v1::StreamLogsResponse>;
  auto set = std::make_unique<Set>(api_address);
  for (const std::string& name : names) {
    v1::StreamLogsRequest request;
    request.set_name(name);
    request.set_follow(true);
    set->Add([&request](v1::LogService::Stub* stub, Set::Reader* reader) {
      stub->async()->StreamLogs(&reader->context, &request, reader);
    });
  }
  return set;
}

std::vector<std::string> ListAll(const std::string& api_address) {
  const auto stub = v1::TrainingJobService::NewStub(NewChannel(api_address));
  v1::ListTrainingJobsRequest request;
  request.set_parent("projects/-");
  request.set_page_size(500);
  std::vector<std::string> names;
  do {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::ListTrainingJobsResponse page;
    const grpc::Status status = stub->ListTrainingJobs(&context, request, &page);
    if (!status.ok()) {
      Die(absl::StrCat("list: ", status.error_message()));
    }
    for (const v1::TrainingJob& job : page.training_jobs()) {
      names.push_back(job.name());
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return names;
}

}  // namespace lasp::bench
