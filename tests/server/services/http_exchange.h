// HTTP as bytes on a socket, for what no client would send.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/spec/unique_fd.h"

namespace lasp::server {

struct HttpAnswer {
  // 0 where the connection ended without an answer.
  int code = 0;
  std::vector<std::string> header_lines = {};
  std::string body = {};

  // Empty where there is none.
  std::string Header(absl::string_view name) const {
    for (const std::string& line : header_lines) {
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
      if (parts.size() == 2 && absl::EqualsIgnoreCase(parts[0], name)) {
        return std::string(absl::StripAsciiWhitespace(parts[1]));
      }
    }
    return "";
  }
};

// A connection to 127.0.0.1 at the port of `address`.
inline UniqueFd ConnectTo(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  UniqueFd connection(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const timeval limit{.tv_sec = 30, .tv_usec = 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return connection;
}

// What comes until the other end closes.
inline HttpAnswer ReadAnswer(int fd) {
  std::string text;
  char buffer[4'096];
  ssize_t size = 0;
  while ((size = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    text.append(buffer, static_cast<size_t>(size));
  }
  HttpAnswer answer;
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos) {
    return answer;
  }
  answer.header_lines = absl::StrSplit(text.substr(0, end), "\r\n");
  const std::vector<std::string> status = absl::StrSplit(answer.header_lines[0], ' ');
  EXPECT_TRUE(status.size() > 1 && absl::SimpleAtoi(status[1], &answer.code)) << text;
  answer.body = text.substr(end + 4);
  return answer;
}

// Sends `bytes` and reads until the other end closes.
inline HttpAnswer ExchangeBytes(const std::string& address, const std::string& bytes) {
  const UniqueFd connection = ConnectTo(address);
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t size =
        send(connection.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (size <= 0) {
      break;  // it does not want the rest
    }
    sent += static_cast<size_t>(size);
  }
  return ReadAnswer(connection.get());
}

// One request with these header lines; Host and Connection are added where they are not there.
inline HttpAnswer Ask(const std::string& address, const std::string& target,
                      const std::vector<std::string>& headers = {},
                      const std::string& method = "GET") {
  std::string text = absl::StrCat(method, " ", target, " HTTP/1.1\r\nConnection: close\r\n");
  bool has_host = false;
  for (const std::string& line : headers) {
    has_host = has_host || absl::StartsWithIgnoreCase(line, "host:");
    absl::StrAppend(&text, line, "\r\n");
  }
  if (!has_host) {
    absl::StrAppend(&text, "Host: localhost\r\n");
  }
  return ExchangeBytes(address, text + "\r\n");
}

}  // namespace lasp::server
