// One HTTP request, for the metrics page.
#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace lasp::worker::testing {

// The whole answer, headers included; `address` is 127.0.0.1:port.
inline std::string HttpGet(const std::string& address, const std::string& path) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) {
    return "";
  }
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port =
      htons(static_cast<uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1)));
  inet_pton(AF_INET, address.substr(0, address.rfind(':')).c_str(), &target.sin_addr);
  std::string answer;
  if (descriptor < 0) {
    return answer;
  }
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  if (connect(descriptor, reinterpret_cast<sockaddr*>(&target), sizeof(target)) == 0 &&
      send(descriptor, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[4096];
    for (ssize_t count = 0; (count = recv(descriptor, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(count));
    }
  }
  close(descriptor);
  return answer;
}

}  // namespace lasp::worker::testing
