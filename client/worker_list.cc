#include "client/worker_list.h"

#include "absl/time/clock.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<std::vector<lasp::v1::Worker>> ListWorkers(Connection* connection,
                                                          absl::Time deadline) {
  lasp::v1::ListWorkersRequest request;
  request.set_page_size(500);
  std::vector<lasp::v1::Worker> workers;
  do {
    LASP_ASSIGN_OR_RETURN(
        const auto page,
        connection->Call(&connection->workers(), &lasp::v1::WorkerAdminService::Stub::ListWorkers,
                         request, deadline - absl::Now()));
    workers.insert(workers.end(), page.workers().begin(), page.workers().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return workers;
}

}  // namespace lasp::client
