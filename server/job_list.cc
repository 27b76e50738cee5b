#include "server/job_list.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/job_filter.h"
#include "server/job_order.h"

namespace lasp::server {
namespace {

// Leaves room below the 4 MiB a message may have.
constexpr size_t kMaxPageBytes = 3 << 20;
constexpr int kScanBatch = 256;

struct Query {
  std::string project;
  const Grant& grant;
  JobFilter filter = {};
  JobOrder order = {};
  int page_size = 0;
};

bool Selects(const Query& query, const JobView& view) {
  return InProject(view.job.name(), query.project) && query.grant.MaySeeJob(view.job.name()) &&
         query.filter.Matches(view.job);
}

std::string EncodeKey(const JobOrderKey& key) {
  return absl::StrCat(key.number, "\n", key.name, "\n", key.text);
}

absl::StatusOr<JobOrderKey> DecodeKey(const std::string& cursor) {
  const std::vector<std::string> parts = absl::StrSplit(cursor, absl::MaxSplits('\n', 2));
  JobOrderKey key;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &key.number)) {
    return absl::InternalError("page_token: signed here, yet not readable");
  }
  key.name = parts[1];
  key.text = parts[2];
  return key;
}

// The first `count` selected jobs after `after`, in order, with one pass and a heap of `count`.
std::vector<JobViewPtr> FirstAfter(const Query& query, const JobCatalog& jobs,
                                   const std::optional<JobOrderKey>& after, size_t count) {
  using Entry = std::pair<JobOrderKey, JobViewPtr>;
  const auto before = [&query](const Entry& a, const Entry& b) {
    return query.order.Before(a.first, b.first);
  };
  std::vector<Entry> heap;
  for (JobViewPtr& view : jobs.All()) {
    if (!Selects(query, *view)) {
      continue;
    }
    JobOrderKey key = query.order.KeyOf(view->job);
    if (after.has_value() && !query.order.Before(*after, key)) {
      continue;
    }
    heap.emplace_back(std::move(key), std::move(view));
    std::push_heap(heap.begin(), heap.end(), before);
    if (heap.size() > count) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.pop_back();
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  std::vector<JobViewPtr> views;
  views.reserve(heap.size());
  for (Entry& entry : heap) {
    views.push_back(std::move(entry.second));
  }
  return views;
}

// The newest first, which is how the catalogue lies: looks only at as many jobs as it takes.
std::vector<JobViewPtr> NewestBefore(const Query& query, const JobCatalog& jobs, int64_t before_id,
                                     size_t count) {
  std::vector<JobViewPtr> views;
  while (views.size() < count) {
    const std::vector<JobViewPtr> batch = jobs.CreatedBefore(before_id, kScanBatch);
    for (const JobViewPtr& view : batch) {
      if (views.size() < count && Selects(query, *view)) {
        views.push_back(view);
      }
    }
    if (batch.size() < static_cast<size_t>(kScanBatch)) {
      break;
    }
    before_id = batch.back()->id;
  }
  return views;
}

bool IsDefaultOrder(absl::string_view order_by) {
  const std::vector<std::string> words = absl::StrSplit(order_by, ' ', absl::SkipEmpty());
  return words.empty() || (words.size() == 2 && words[0] == "create_time" && words[1] == "desc");
}

}  // namespace

bool InProject(absl::string_view job_name, absl::string_view project) {
  return project == kAnyProject ||
         (absl::ConsumePrefix(&job_name, "projects/") && absl::ConsumePrefix(&job_name, project) &&
          absl::StartsWith(job_name, "/"));
}

absl::StatusOr<v1::ListTrainingJobsResponse> ListJobs(const v1::ListTrainingJobsRequest& request,
                                                      const JobCatalog& jobs,
                                                      const WatchHub& watches,
                                                      const PageTokenCodec& tokens,
                                                      const Grant& grant, absl::Time now) {
  Query query{.project = {}, .grant = grant};
  LASP_ASSIGN_OR_RETURN(query.project, ParseProjectName(request.parent(), true));
  LASP_ASSIGN_OR_RETURN(query.page_size, ResolvePageSize(request.page_size()));
  LASP_ASSIGN_OR_RETURN(query.filter, JobFilter::Parse(request.filter()));
  LASP_ASSIGN_OR_RETURN(query.order, JobOrder::Parse(request.order_by()));
  const std::vector<std::string> bound = {"jobs", request.parent(), request.filter(),
                                          request.order_by()};
  std::string cursor;
  if (!request.page_token().empty()) {
    LASP_ASSIGN_OR_RETURN(cursor, tokens.Decode(bound, request.page_token(), now));
  }

  v1::ListTrainingJobsResponse response;
  // Before the jobs are read: a watch from here may repeat a change of this list but misses none.
  response.set_resume_token(watches.ResumeToken(jobs.revision()));
  const bool newest_first = IsDefaultOrder(request.order_by());
  const size_t count = static_cast<size_t>(query.page_size) + 1;
  std::vector<JobViewPtr> views;
  if (newest_first) {
    int64_t before_id = std::numeric_limits<int64_t>::max();
    if (!cursor.empty() && !absl::SimpleAtoi(cursor, &before_id)) {
      return absl::InternalError("page_token: signed here, yet not readable");
    }
    views = NewestBefore(query, jobs, before_id, count);
  } else {
    std::optional<JobOrderKey> after;
    if (!cursor.empty()) {
      LASP_ASSIGN_OR_RETURN(after, DecodeKey(cursor));
    }
    views = FirstAfter(query, jobs, after, count);
  }

  size_t bytes = 0;
  for (size_t i = 0; i < views.size(); ++i) {
    const bool full = i == static_cast<size_t>(query.page_size) || bytes > kMaxPageBytes;
    if (full) {
      const JobView& last = *views[i - 1];
      response.set_next_page_token(tokens.Encode(
          bound, newest_first ? absl::StrCat(last.id) : EncodeKey(query.order.KeyOf(last.job)),
          now));
      break;
    }
    *response.add_training_jobs() = views[i]->ToProto();
    bytes += response.training_jobs(static_cast<int>(i)).ByteSizeLong();
  }
  return response;
}

}  // namespace lasp::server
