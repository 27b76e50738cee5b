// Messages put together from parts that are serialised already.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <array>
#include <string>

#include "absl/strings/string_view.h"

namespace lasp::server {

// What stands before the bytes of a message, string or bytes field.
inline std::string FieldHead(int number, size_t size) {
  using Coder = google::protobuf::io::CodedOutputStream;
  using Lite = google::protobuf::internal::WireFormatLite;
  // Two varints of 32 bits.
  std::array<uint8_t, 10> head{};
  const uint32_t tag = Lite::MakeTag(number, Lite::WIRETYPE_LENGTH_DELIMITED);
  const uint8_t* const end = Coder::WriteVarint32ToArray(
      static_cast<uint32_t>(size), Coder::WriteVarint32ToArray(tag, head.data()));
  return {head.begin(), head.begin() + (end - head.data())};
}

// Appends such a field. The fields of a message may come in any order on the wire.
inline void AppendField(int number, absl::string_view value, std::string* bytes) {
  *bytes += FieldHead(number, value.size());
  bytes->append(value.data(), value.size());
}

}  // namespace lasp::server
