// The listening side of a port: accepts connections and hands those that may stay to gRPC.
//
// Not left to gRPC 1.51, which accepts without bound and, at the process's limit of descriptors,
// stops listening for good (CVE-2023-4785).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/spec/unique_fd.h"
#include "server/connection_table.h"
#include "server/listen_address.h"

namespace lasp::server {

// Start and Stop belong to one thread.
class ConnectionAcceptor {
 public:
  // Takes over a connected, non-blocking socket that `listener` has accepted.
  using Handler = std::function<void(int listener, UniqueFd connection)>;

  // Listens on `address`, exclusively; a wildcard stands for IPv4 and IPv6. Nobody is accepted
  // before Start. `flag` names the address in errors, which are those of PortTaken.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Listen(const std::string& flag,
                                                                    const ListenAddress& address);

  // As Stop.
  ~ConnectionAcceptor();
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

  int port() const { return port_; }

  // Hands every connection that `table`, which outlives this, allows to `handler`, on a thread of
  // its own; hangs up on the others. The kernel drops one whose other end has not acknowledged what
  // was sent to it for `unacknowledged_timeout`. Once.
  void Start(ConnectionTable* table, absl::Duration unacknowledged_timeout, Handler handler);

  // Accepts nobody any more; the handler is not called again. Idempotent.
  void Stop();

 private:
  ConnectionAcceptor(std::vector<UniqueFd> listeners, int port);

  void Run();
  // Takes those that wait, or the first of many; gives how long to rest then.
  absl::Duration Accept(int listener);

  std::vector<UniqueFd> listeners_;
  const int port_;
  // Readable once the thread is to end.
  UniqueFd stop_;
  ConnectionTable* table_ = nullptr;
  int user_timeout_ms_ = 0;
  Handler handler_;
  std::thread thread_;
};

}  // namespace lasp::server
