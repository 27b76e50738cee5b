// Working memory of one thread, kept between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace lasp::kernels::cpu {

// Hands out aligned pieces of one growing buffer. Make one at the start of a call, with the
// elements that the call will take; its pieces hold what was left there, always finite or not
// numbers that the caller wrote. Only one may live in a thread at a time.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t elements) : left_(Reserve(elements)) {}

  // `elements` is rounded up to whole cache lines.
  T* Take(int64_t elements) {
    T* const piece = left_;
    left_ += Rounded(elements);
    return piece;
  }

  static int64_t Rounded(int64_t elements) {
    constexpr auto kLine = static_cast<int64_t>(kAlignment / sizeof(T));
    return (elements + kLine - 1) / kLine * kLine;
  }

 private:
  static constexpr size_t kAlignment = 64;

  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, std::align_val_t{kAlignment}); }
  };

  static T* Reserve(int64_t elements) {
    thread_local std::unique_ptr<T, Free> buffer;
    thread_local int64_t capacity = 0;
    if (elements > capacity) {
      buffer.reset();
      capacity = 0;
      const size_t bytes = static_cast<size_t>(elements) * sizeof(T);
      buffer.reset(static_cast<T*>(::operator new(bytes, std::align_val_t{kAlignment})));
      std::uninitialized_fill_n(buffer.get(), elements, T{0});
      capacity = elements;
    }
    return buffer.get();
  }

  T* left_;
};

}  // namespace lasp::kernels::cpu
