#include "server/server.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "proto/rpc/clock.h"
#include "proto/rpc/disk_metrics.h"
#include "proto/rpc/log.h"
#include "proto/rpc/metrics_exposer.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/process_metrics.h"
#include "proto/rpc/status_macros.h"
#include "server/audit_service.h"
#include "server/backup_service.h"
#include "server/call_rate.h"
#include "server/calls_ender.h"
#include "server/checkpoint_service.h"
#include "server/connection_metrics.h"
#include "server/console/console.h"
#include "server/core_metrics.h"
#include "server/credential_metrics.h"
#include "server/data_folder_lock.h"
#include "server/event_service.h"
#include "server/grpc_listener.h"
#include "server/listen_address.h"
#include "server/log_service.h"
#include "server/metrics_service.h"
#include "server/rpc_metrics.h"
#include "server/server_core.h"
#include "server/server_metrics.h"
#include "server/server_service.h"
#include "server/service_parts.h"
#include "server/tls_credentials.h"
#include "server/training_job_service.h"
#include "server/worker_admin_service.h"
#include "server/worker_service.h"

namespace lasp::server {
namespace {

constexpr char kReadiness[] = "readiness";
constexpr char kLiveness[] = "liveness";

// Full names of what is served: the last on the worker plane, the others on the API port.
const std::vector<std::string>& ServedServices() {
  static const auto* const names = new std::vector<std::string>{
      "lasp.v1.TrainingJobService", "lasp.v1.CheckpointService",  "lasp.v1.MetricsService",
      "lasp.v1.LogService",         "lasp.v1.WorkerAdminService", "lasp.v1.ServerService",
      "lasp.v1.EventService",       "lasp.v1.AuditService",       "lasp.v1.BackupService",
      "lasp.v1.WorkerService"};
  return *names;
}

// Whether the coordinator is ready, from two sides: the store may refuse before health is served.
class Readiness {
 public:
  void SetStoreHealthy(bool healthy) {
    MutexLock lock(&mutex_);
    healthy_ = healthy;
    Publish();
  }

  // Null when health is no longer served.
  void SetListener(GrpcListener* listener) {
    MutexLock lock(&mutex_);
    listener_ = listener;
    Publish();
  }

 private:
  void Publish() REQUIRES_LOCK(mutex_) {
    if (listener_ != nullptr) {
      listener_->SetServing(kReadiness, healthy_);
      listener_->SetServing("", healthy_);
      listener_->SetServing(kLiveness, true);
    }
  }

  Mutex mutex_;
  bool healthy_ GUARDED_BY(mutex_) = true;
  GrpcListener* listener_ GUARDED_BY(mutex_) = nullptr;
};

// A taken port is answered with its holder, as on the other ports.
absl::StatusOr<std::unique_ptr<MetricsExposer>> ServeMetrics(const std::string& address) {
  auto page = MetricsExposer::Create(address);
  if (absl::IsUnavailable(page.status())) {
    LASP_ASSIGN_OR_RETURN(const ListenAddress listen, ListenAddress::Parse(address));
    return PortTaken("metrics_address", listen, page.status().message());
  }
  return page;
}

// Null, for plaintext, where there is none.
std::shared_ptr<grpc::ServerCredentials> TlsFor(const Credentials& credentials, bool agents) {
  return credentials.has_tls() ? TlsServerCredentials(&credentials, agents) : nullptr;
}

// As many as this process has descriptors for: two ports may be full, and all else needs some.
ConnectionLimits FitToDescriptors(ConnectionLimits limits) {
  constexpr int64_t kForAllElse = 500;
  rlimit descriptors{};
  if (getrlimit(RLIMIT_NOFILE, &descriptors) != 0) {
    return limits;
  }
  const auto has = static_cast<int64_t>(std::min<rlim_t>(descriptors.rlim_cur, 1 << 30));
  const int64_t room = std::max<int64_t>(1, (has - kForAllElse) / 2);
  if (limits.all > room) {
    LASP_LOG(kWarning, "fewer connections than --max_connections: raise the limit of descriptors",
             {{"max_connections", limits.all}, {"connections", room}, {"descriptors", has}});
    limits.all = static_cast<int>(room);
  }
  return limits;
}

// What every port's callers may not exceed.
GrpcListenerOptions Limited(const ServerOptions& options, const ConnectionLimits& connections,
                            ServerMetrics* metrics) {
  GrpcListenerOptions listener;
  listener.connections = connections;
  listener.idle_timeout = options.idle_timeout;
  listener.handshake_timeout = options.handshake_timeout;
  listener.max_buffer_bytes = options.max_buffer_bytes;
  // Its streams, and calls beside them.
  listener.max_calls_a_connection = options.max_streams_a_principal + 100;
  listener.max_message_bytes = options.max_message_bytes;
  listener.on_refusal = [metrics](const char* flag) { metrics->OnLimitReached(flag); };
  return listener;
}

}  // namespace

// In the order in which they are made; destroyed backwards.
struct Server::Parts {
  ServerAddresses addresses;
  std::unique_ptr<DataFolderLock> folder;
  Readiness readiness;
  ServerMetrics metrics;
  std::unique_ptr<Credentials> credentials;
  // Null without tokens.
  std::unique_ptr<AccessControl> access;
  std::unique_ptr<ServerCore> core;
  // Streams hold subscriptions of the core and run on the pools, so all pools end, and with them
  // the last streams, before the core does.
  std::unique_ptr<OpenStreams> streams;
  std::unique_ptr<TaskPool> blocking_pool;
  std::unique_ptr<TaskPool> answer_pool;
  std::unique_ptr<TaskPool> log_pool;
  std::unique_ptr<TaskPool> backup_pool;
  std::unique_ptr<TaskPool> export_pool;
  std::unique_ptr<TaskPool> watch_pool;
  std::unique_ptr<RpcMetrics> rpc_metrics;
  std::unique_ptr<CallRate> call_rate;
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::vector<std::shared_ptr<prometheus::Collectable>> exposed;
  std::unique_ptr<GrpcListener> worker_plane;
  std::unique_ptr<GrpcListener> api;
  std::unique_ptr<GrpcListener> health;
  // Made before the ports, whose connections it counts at each scrape: ends before they do.
  std::unique_ptr<MetricsExposer> metrics_page;
  std::unique_ptr<ConsoleMetrics> console_metrics;
  // Calls the API, so it ends first.
  std::unique_ptr<Console> console;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  auto parts = std::make_unique<Parts>();
  LASP_ASSIGN_OR_RETURN(parts->folder, DataFolderLock::Acquire(options.data_dir));

  LASP_ASSIGN_OR_RETURN(
      parts->credentials,
      Credentials::Load(options.credentials, [metrics = &parts->metrics](bool used) {
        metrics->OnCredentialReload(used);
      }));
  if (parts->credentials->has_tokens()) {
    parts->access = std::make_unique<AccessControl>(parts->credentials.get());
  } else {
    LASP_LOG(kWarning, "there is no --token_file: every user of this host is admin");
  }
  CoreOptions core_options = options.core;
  core_options.data_dir = options.data_dir;
  core_options.retain_finished = options.retain_finished;
  parts->metrics.set_on_store_health(
      [readiness = &parts->readiness](bool healthy) { readiness->SetStoreHealthy(healthy); });
  LASP_ASSIGN_OR_RETURN(parts->core,
                        ServerCore::Open(core_options, &SystemClock(), &parts->metrics));
  parts->streams = std::make_unique<OpenStreams>(
      &SystemClock(), [metrics = &parts->metrics] { metrics->OnStreamEvicted(); },
      [metrics = &parts->metrics] { metrics->OnLimitReached("max_streams_a_principal"); },
      options.max_streams_a_principal);
  parts->blocking_pool = std::make_unique<TaskPool>(TaskPool::Options{.threads = 2});
  parts->answer_pool = std::make_unique<TaskPool>(TaskPool::Options{.threads = 2});
  parts->log_pool = std::make_unique<TaskPool>(TaskPool::Options{.threads = 2});
  parts->backup_pool = std::make_unique<TaskPool>(TaskPool::Options{.threads = 2});
  parts->export_pool = std::make_unique<TaskPool>(TaskPool::Options{.threads = 2});
  // A burst of commits wakes every watch at each of them; a short rest lets one pass answer many.
  parts->watch_pool =
      std::make_unique<TaskPool>(TaskPool::Options{.threads = 1, .rest = absl::Milliseconds(10)});
  parts->rpc_metrics =
      std::make_unique<RpcMetrics>(parts->metrics.registry(), ServedServices(), &SystemClock());

  parts->call_rate = std::make_unique<CallRate>(&SystemClock(), options.max_calls_a_second);

  const ServiceParts shared{.core = parts->core.get(),
                            .clock = &SystemClock(),
                            .streams = parts->streams.get(),
                            .blocking_pool = parts->blocking_pool.get(),
                            .answer_pool = parts->answer_pool.get(),
                            .log_pool = parts->log_pool.get(),
                            .backup_pool = parts->backup_pool.get(),
                            .export_pool = parts->export_pool.get(),
                            .watch_pool = parts->watch_pool.get(),
                            .access = parts->access.get(),
                            .labels = options.labels,
                            .slow_reader_limit = options.slow_reader_limit};
  const std::string& secret = parts->core->store().uuid();
  auto& services = parts->services;
  services.push_back(std::make_unique<TrainingJobService>(shared, options.path_roots, secret));
  services.push_back(std::make_unique<CheckpointService>(shared, secret));
  services.push_back(std::make_unique<MetricsService>(shared));
  services.push_back(std::make_unique<LogService>(shared));
  services.push_back(std::make_unique<WorkerAdminService>(shared, secret));
  services.push_back(
      std::make_unique<ServerService>(shared, options.data_dir, SystemClock().Now()));
  services.push_back(std::make_unique<EventService>(shared, secret));
  services.push_back(std::make_unique<AuditService>(shared, secret));
  services.push_back(std::make_unique<BackupService>(shared));
  services.push_back(std::make_unique<WorkerService>(shared));

  LASP_ASSIGN_OR_RETURN(parts->metrics_page, ServeMetrics(options.metrics_address));
  parts->exposed = {
      parts->metrics.counted(),
      std::make_shared<CoreMetrics>(parts->core.get(),
                                    CoreMetrics::Pools{{"answer", parts->answer_pool.get()},
                                                       {"backup", parts->backup_pool.get()},
                                                       {"blocking", parts->blocking_pool.get()},
                                                       {"export", parts->export_pool.get()},
                                                       {"log", parts->log_pool.get()},
                                                       {"watch", parts->watch_pool.get()}}),
      std::make_shared<CredentialMetrics>(parts->credentials.get()),
      std::make_shared<DiskMetrics>("lasp_data_dir", options.data_dir),
      std::make_shared<ProcessMetrics>("lasp-server")};
  for (const auto& collectable : parts->exposed) {
    parts->metrics_page->Add(collectable);
  }
  const ConnectionLimits connections = FitToDescriptors(options.connections);
  GrpcListenerOptions worker_plane = Limited(options, connections, &parts->metrics);
  worker_plane.flag = "worker_address";
  worker_plane.address = options.worker_address;
  worker_plane.services = {services.back().get()};
  worker_plane.service_names = {ServedServices().back()};
  worker_plane.many_connections = true;
  worker_plane.metrics = parts->rpc_metrics.get();
  worker_plane.credentials = TlsFor(*parts->credentials, true);
  LASP_ASSIGN_OR_RETURN(parts->worker_plane, GrpcListener::Start(worker_plane));

  GrpcListenerOptions api = Limited(options, connections, &parts->metrics);
  api.flag = "api_address";
  api.address = options.api_address;
  api.service_names = {ServedServices().begin(), ServedServices().end() - 1};
  api.reflection = true;
  api.metrics = parts->rpc_metrics.get();
  api.credentials = TlsFor(*parts->credentials, false);
  api.access = parts->access.get();
  api.refusals = &parts->core->refusals();
  api.call_rate = parts->call_rate.get();
  for (size_t i = 0; i + 1 < services.size(); ++i) {
    api.services.push_back(services[i].get());
  }
  LASP_ASSIGN_OR_RETURN(parts->api, GrpcListener::Start(api));

  GrpcListenerOptions health = Limited(options, connections, &parts->metrics);
  health.flag = "health_address";
  health.address = options.health_address;
  LASP_ASSIGN_OR_RETURN(parts->health, GrpcListener::Start(health));
  parts->exposed.push_back(std::make_shared<ConnectionMetrics>(ConnectionMetrics::Counters{
      {"api", [port = parts->api.get()] { return port->connection_count(); }},
      {"health", [port = parts->health.get()] { return port->connection_count(); }},
      {"worker", [port = parts->worker_plane.get()] { return port->connection_count(); }}}));
  parts->metrics_page->Add(parts->exposed.back());
  if (!options.console_address.empty()) {
    parts->console_metrics = std::make_unique<ConsoleMetrics>(parts->metrics.registry());
    LASP_ASSIGN_OR_RETURN(parts->console, Console::Start({.address = options.console_address,
                                                          .api = parts->api->InProcessChannel(),
                                                          .credentials = parts->credentials.get(),
                                                          .metrics = parts->console_metrics.get(),
                                                          .clock = &SystemClock()}));
  }
  parts->readiness.SetListener(parts->health.get());
  parts->addresses = {
      .api_address = parts->api->address(),
      .worker_address = parts->worker_plane->address(),
      .health_address = parts->health->address(),
      .metrics_address = parts->metrics_page->address(),
      .console_address = parts->console == nullptr ? "" : parts->console->address()};
  LASP_RETURN_IF_ERROR(parts->folder->Publish(parts->addresses.api_address));
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() { Stop(); }

const ServerAddresses& Server::addresses() const { return parts_->addresses; }

void Server::Stop(absl::Duration grace) {
  if (parts_->core == nullptr) {
    return;
  }
  parts_->core->backups().Stop();
  // Probes fail first, so that nobody is sent here any more.
  parts_->readiness.SetListener(nullptr);
  parts_->health->SetServing(kReadiness, false);
  parts_->console.reset();
  parts_->streams->CloseAll(
      absl::UnavailableError("the coordinator is stopping: connect again in a moment"));
  {
    // gRPC waits until every call has ended, so what a full disk keeps from its answer gets one.
    const CallsEnder ender(&parts_->core->controller(), grace);
    parts_->api->Shutdown(grace);
    parts_->worker_plane->Shutdown(grace);
  }
  parts_->metrics_page.reset();
  parts_->health->Shutdown(absl::ZeroDuration());
  parts_->health.reset();
  parts_->api.reset();
  parts_->worker_plane.reset();
  parts_->services.clear();
  parts_->watch_pool.reset();
  parts_->log_pool.reset();
  parts_->backup_pool.reset();
  parts_->export_pool.reset();
  parts_->answer_pool.reset();
  parts_->blocking_pool.reset();
  parts_->streams.reset();
  parts_->core.reset();
  parts_->folder.reset();
}

}  // namespace lasp::server
