// Who listens on a TCP port of this machine, for the message of a server that found it taken.
#pragma once

#include <string>

namespace lasp::server {

// For example "pid 4711 (lasp-server)"; "a process of another user" where the owner is not ours to
// see; empty where nobody listens.
std::string DescribePortHolder(int port);

}  // namespace lasp::server
