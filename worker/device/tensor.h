// A view of a matrix in device memory. Everything the engine computes on has two dimensions: tokens
// by features, states by rows, parameters by outputs and inputs.
#pragma once

#include <cstdint>

namespace lasp::worker {

enum class DType : uint8_t { kFloat32, kFloat64, kBFloat16, kInt32 };

constexpr int64_t SizeOf(DType type) {
  switch (type) {
    case DType::kFloat64:
      return 8;
    case DType::kBFloat16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
  }
  return 0;
}

// Does not own its memory. Rows lie `row_stride` elements apart; columns are contiguous.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;

  int64_t count() const { return rows * columns; }

  int64_t bytes() const { return count() * SizeOf(dtype); }

  bool contiguous() const { return row_stride == columns || rows <= 1; }

  bool empty() const { return data == nullptr; }

  // Rows [begin, begin + size).
  Tensor Rows(int64_t begin, int64_t size) const {
    return {Offset(begin * row_stride), dtype, size, columns, row_stride};
  }

  // Columns [begin, begin + size) of every row.
  Tensor Columns(int64_t begin, int64_t size) const {
    return {Offset(begin), dtype, rows, size, row_stride};
  }

  // The same contiguous elements in another shape of as many elements.
  Tensor Reshape(int64_t new_rows, int64_t new_columns) const {
    return {data, dtype, new_rows, new_columns, new_columns};
  }

 private:
  void* Offset(int64_t elements) const {
    return data == nullptr ? nullptr : static_cast<char*>(data) + elements * SizeOf(dtype);
  }
};

}  // namespace lasp::worker
