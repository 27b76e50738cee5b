// An owned file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace lasp {

class UniqueFd {
 public:
  UniqueFd() = default;

  explicit UniqueFd(int fd) : fd_(fd) {}

  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Reset(std::exchange(other.fd_, -1));
    }
    return *this;
  }

  ~UniqueFd() { Reset(-1); }

  int get() const { return fd_; }

  // The caller closes it.
  int Release() { return std::exchange(fd_, -1); }

  bool valid() const { return fd_ >= 0; }

 private:
  void Reset(int fd) {
    if (fd_ >= 0) {
      close(fd_);
    }
    fd_ = fd;
  }

  int fd_ = -1;
};

}  // namespace lasp
