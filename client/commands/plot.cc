#include "client/plot.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/document.h"
#include "client/event_stream.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "client/plot_metric.h"
#include "client/stream_retry.h"
#include "client/utf8.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::StepMetrics;
using lasp::v1::TrainingJob;

// The most the coordinator gives in one answer.
constexpr int kMostPoints = 10'000;
// Far more than a terminal has columns: a longer run that is watched is thinned.
constexpr size_t kMostHeld = 40'000;
constexpr int kDefaultColumns = 80;
constexpr int kDefaultRows = 16;
// Lines of the picture beside the curve, and the one the cursor stands in.
constexpr int kOtherLines = 5;
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(500);
constexpr char kHomeAndClear[] = "\x1b[H\x1b[J";

// What is drawn, and where its steps go on.
class Plotted {
 public:
  Plotted(TrainingJob job, const PlotOptions& options)
      : job_(std::move(job)), options_(options), metric_(&PlotMetrics().front()) {
    for (const PlotMetric& metric : PlotMetrics()) {
      metric_ = metric.name == options.metric ? &metric : metric_;
    }
  }

  const TrainingJob& job() const { return job_; }

  void SetJob(TrainingJob job) { job_ = std::move(job); }

  // A newer generation's step takes the place of an older one's.
  template <typename Steps>
  void Add(const Steps& steps) {
    for (const StepMetrics& step : steps) {
      last_step_ = step.step();
      generation_ = step.generation();
      const bool wanted = step.step() >= options_.from_step &&
                          (options_.to_step == 0 || step.step() <= options_.to_step);
      if (wanted && (metric_->present == nullptr || metric_->present(step))) {
        series_[step.step()] = metric_->value(step);
      }
    }
    if (series_.size() > kMostHeld) {
      Thin();
    }
  }

  int64_t last_step() const { return last_step_; }

  int64_t generation() const { return generation_; }

  std::string Picture(const Terminal& terminal) const {
    PlotSize size;
    size.utf8 = terminal.utf8;
    size.columns = options_.width > 0   ? options_.width
                   : terminal.width > 0 ? terminal.width - 1
                                        : kDefaultColumns;
    size.rows = options_.height > 0 ? options_.height : kDefaultRows;
    if (options_.height == 0 && terminal.height > 0) {
      size.rows = std::min(size.rows, terminal.height - kOtherLines);
    }
    const std::string title = absl::StrCat(metric_->name, " of job/", ShortName(job_.name()), ", ",
                                           StateName(job_.state()), ", step ",
                                           job_.progress().step(), "/", job_.spec().max_steps());
    return DrawPlot(Printable(title), metric_->unit, series_, size);
  }

  Document AsDocument() const {
    Document document = Document::object();
    document["name"] = job_.name();
    document["metric"] = metric_->name;
    document["unit"] = metric_->unit;
    Document points = Document::array();
    size_t not_finite = 0;
    for (const auto& [step, value] : series_) {
      Document point = Document::array({step, nullptr});
      if (std::isfinite(value)) {
        point[1] = value;
      } else {
        ++not_finite;
      }
      points.push_back(std::move(point));
    }
    document["points"] = std::move(points);
    document["not_finite"] = not_finite;
    return document;
  }

 private:
  // Every second finite value goes; what is not finite stays to be seen.
  void Thin() {
    bool keep = true;
    for (auto point = series_.begin(); point != series_.end();) {
      keep = !keep || !std::isfinite(point->second);
      point = keep ? std::next(point) : series_.erase(point);
    }
  }

  TrainingJob job_;
  const PlotOptions options_;
  const PlotMetric* metric_;
  PlotSeries series_;
  int64_t last_step_ = 0;
  int64_t generation_ = 0;
};

absl::Status Query(const PlotOptions& options, Plotted* plotted, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::QueryMetricsRequest request;
  request.set_name(plotted->job().name());
  request.set_from_step(options.from_step);
  request.set_to_step(options.to_step);
  request.set_max_points(kMostPoints);
  LASP_ASSIGN_OR_RETURN(
      const auto response,
      connection->Call(&connection->metrics(), &lasp::v1::MetricsService::Stub::QueryMetrics,
                       request, kReadDeadline));
  plotted->Add(response.steps());
  return absl::OkStatus();
}

absl::Status Refresh(Plotted* plotted, Session* session) {
  LASP_ASSIGN_OR_RETURN(TrainingJob job, ResolveExactJob(plotted->job().name(), session));
  plotted->SetJob(std::move(job));
  session->console().Print(absl::StrCat(kHomeAndClear, plotted->Picture(session->console().Out())));
  return absl::OkStatus();
}

// Draws until the stream ends: OK when the job has ended.
absl::Status DrawStream(EventStream<lasp::v1::StreamMetricsResponse>* stream, StreamRetry* retry,
                        Plotted* plotted, Session* session) {
  constexpr absl::Duration kPatience = absl::Minutes(1);
  absl::Time drawn = absl::Now();
  bool changed = false;
  while (true) {
    const absl::Duration patience =
        changed ? std::max(absl::ZeroDuration(), drawn + kRedrawInterval - absl::Now()) : kPatience;
    const StreamEvent event = stream->Next(patience);
    if (event == StreamEvent::kEnd) {
      return stream->status();
    }
    if (event == StreamEvent::kMessage) {
      retry->Heard();
      plotted->Add(stream->message().steps());
      changed = true;
    }
    if (changed && absl::Now() >= drawn + kRedrawInterval) {
      LASP_RETURN_IF_ERROR(Refresh(plotted, session));
      drawn = absl::Now();
      changed = false;
    }
  }
}

absl::StatusOr<int> WatchPlot(Plotted* plotted, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  LASP_RETURN_IF_ERROR(Refresh(plotted, session));
  while (true) {
    lasp::v1::StreamMetricsRequest request;
    request.set_name(plotted->job().name());
    request.set_from_step(plotted->last_step() + 1);
    request.set_from_generation(plotted->generation());
    EventStream<lasp::v1::StreamMetricsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->metrics().PrepareAsyncStreamMetrics(context, request, queue);
        });
    const absl::Status end = DrawStream(&stream, &retry, plotted, session);
    if (end.ok()) {
      LASP_RETURN_IF_ERROR(Refresh(plotted, session));
      return kExitOk;
    }
    LASP_RETURN_IF_ERROR(retry.BeforeNextTry(end));
  }
}

}  // namespace

absl::StatusOr<int> Plot(const PlotOptions& options, const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  if (options.to_step > 0 && options.to_step < options.from_step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--to ", options.to_step, " is before the first step, --from ", options.from_step));
  }
  LASP_ASSIGN_OR_RETURN(TrainingJob job, ResolveJob(reference, session));
  Plotted plotted(std::move(job), options);
  LASP_RETURN_IF_ERROR(Query(options, &plotted, session));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    console.Print(plotted.job().name() + "\n");
  } else if (!IsTable(format)) {
    console.Print(DocumentText(plotted.AsDocument(), format));
  } else if (options.watch && console.Out().is_tty) {
    return WatchPlot(&plotted, session);
  } else {
    console.Print(plotted.Picture(console.Out()));
  }
  return kExitOk;
}

}  // namespace lasp::client
