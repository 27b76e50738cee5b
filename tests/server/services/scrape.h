// What Prometheus would read.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "proto/spec/unique_fd.h"

namespace lasp::server {

// GET /metrics, body only.
inline std::string Scrape(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  const UniqueFd to_server(socket(AF_INET, SOCK_STREAM, 0));
  const int fd = to_server.get();
  if (fd < 0) {
    ADD_FAILURE() << "no socket";
    return "";
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4'096];
  ssize_t size = 0;
  while ((size = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    answer.append(buffer, static_cast<size_t>(size));
  }
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

// The value of a series without labels; -1 where the page has none.
inline double ScrapeValue(const std::string& address, const std::string& series) {
  const std::string page = Scrape(address);
  const size_t line = page.find("\n" + series + " ");
  double value = -1;
  if (line != std::string::npos) {
    const size_t begin = line + series.size() + 2;
    EXPECT_TRUE(absl::SimpleAtod(page.substr(begin, page.find('\n', begin) - begin), &value));
  }
  return value;
}

}  // namespace lasp::server
