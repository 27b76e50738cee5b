#include "proto/checkpoint/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/quoted_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp {
namespace {

constexpr int64_t kAlignment = 64;
// Beyond it a double, and JSON's numbers, are not exact.
constexpr int64_t kMostElements = int64_t{1} << 53;
constexpr char kMetadataKey[] = "__metadata__";

// 0 for a dtype that the format does not know.
int64_t SizeOfDtype(absl::string_view dtype) {
  static const auto* const sizes = new std::map<std::string, int64_t>{
      {"F64", 8},  {"I64", 8},     {"U64", 8},     {"F32", 4}, {"I32", 4},
      {"U32", 4},  {"F16", 2},     {"I16", 2},     {"U16", 2}, {"I8", 1},
      {"BF16", 2}, {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U8", 1},  {"BOOL", 1}};
  const auto found = sizes->find(std::string(dtype));
  return found == sizes->end() ? 0 : found->second;
}

// Takes the JSON token by token: what is no header ends the parse where it stands, however large or
// deep the rest is.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader& header() { return header_; }

  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }

  bool boolean(bool /*value*/) override { return Unexpected("a boolean"); }

  bool number_integer(number_integer_t /*value*/) override {
    return Unexpected("a negative number");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumbers || value > static_cast<uint64_t>(kMostElements)) {
      return Unexpected(absl::StrCat("the number ", value));
    }
    numbers_->push_back(static_cast<int64_t>(value));
    return true;
  }

  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text));
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[key_] = value;
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      header_.tensors.back().dtype = value;
      return true;
    }
    return Unexpected(absl::StrCat("the text ", QuotedName(value)));
  }

  bool binary(binary_t& /*value*/) override { return Unexpected("bytes"); }

  bool start_object(std::size_t /*elements*/) override {
    if (place_ == Place::kBefore) {
      place_ = Place::kHeader;
      return true;
    }
    if (place_ != Place::kHeader) {
      return Unexpected("an object");
    }
    place_ = key_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
    keys_.clear();
    if (place_ == Place::kTensor) {
      header_.tensors.emplace_back().name = key_;
      offsets_.clear();
    }
    return true;
  }

  bool end_object() override {
    switch (place_) {
      case Place::kMetadata:
        place_ = Place::kHeader;
        return true;
      case Place::kTensor:
        place_ = Place::kHeader;
        return EndTensor();
      case Place::kHeader:
        place_ = Place::kAfter;
        return true;
      default:
        return Unexpected("the end of an object");
    }
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ != Place::kTensor || (key_ != "shape" && key_ != "data_offsets")) {
      return Unexpected("an array");
    }
    place_ = Place::kNumbers;
    numbers_ = key_ == "shape" ? &header_.tensors.back().shape : &offsets_;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& value) override {
    std::set<std::string>& keys = place_ == Place::kHeader ? names_ : keys_;
    if (!keys.insert(value).second) {
      return Fail(absl::StrCat(QuotedName(value), " is there twice"));
    }
    if (place_ == Place::kTensor && value != "dtype" && value != "shape" &&
        value != "data_offsets") {
      return Fail(absl::StrCat(QuotedName(header_.tensors.back().name), " has a field ",
                               QuotedName(value)));
    }
    key_ = value;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return Fail(absl::StrCat("no JSON from byte ", position, " on"));
  }

 private:
  enum class Place : uint8_t {
    kBefore,
    kHeader,
    kMetadata,
    kTensor,
    kNumbers,
    kAfter,
  };

  bool EndTensor() {
    SafetensorsEntry& tensor = header_.tensors.back();
    if (keys_.size() != 3 || offsets_.size() != 2) {
      return Fail(absl::StrCat(QuotedName(tensor.name),
                               " needs a dtype, a shape and data_offsets of two numbers"));
    }
    tensor.begin = offsets_[0];
    tensor.end = offsets_[1];
    return true;
  }

  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat(what, key_.empty() ? "" : absl::StrCat(" at ", QuotedName(key_)),
                             ", of no use"));
  }

  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  SafetensorsHeader header_;
  std::string error_;
  Place place_ = Place::kBefore;
  std::string key_;
  std::set<std::string> names_;
  // Of the object that is being read.
  std::set<std::string> keys_;
  std::vector<int64_t> offsets_;
  std::vector<int64_t>* numbers_ = nullptr;
};

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a safetensors file: ", what));
}

absl::Status CheckSize(const SafetensorsEntry& tensor, int64_t data_bytes) {
  const int64_t element_bytes = SizeOfDtype(tensor.dtype);
  if (element_bytes == 0) {
    return Wrong(
        absl::StrCat(QuotedName(tensor.name), " has the dtype ", QuotedName(tensor.dtype)));
  }
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    if (size > 0 && elements > kMostElements / size) {
      return Wrong(absl::StrCat(QuotedName(tensor.name), " has too many elements"));
    }
    elements *= size;
  }
  if (tensor.begin > tensor.end || tensor.end > data_bytes) {
    return Wrong(absl::StrCat(QuotedName(tensor.name), " lies from byte ", tensor.begin, " to ",
                              tensor.end, " of ", data_bytes));
  }
  if (tensor.end - tensor.begin != elements * element_bytes) {
    return Wrong(absl::StrCat(QuotedName(tensor.name), " has ", tensor.end - tensor.begin,
                              " bytes; its shape asks for ", elements, " times ", element_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

std::string PrintSafetensorsHeader(const SafetensorsHeader& header) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) {
    json[kMetadataKey] = header.metadata;
  }
  for (const SafetensorsEntry& tensor : header.tensors) {
    json[tensor.name] = {{"dtype", tensor.dtype},
                         {"shape", tensor.shape},
                         {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text =
      json.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
  const auto unpadded = static_cast<int64_t>(text.size()) + kSafetensorsLengthBytes;
  text.append(static_cast<size_t>((kAlignment - unpadded % kAlignment) % kAlignment), ' ');
  std::string length(static_cast<size_t>(kSafetensorsLengthBytes), '\0');
  for (size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<char>((text.size() >> (8 * i)) & 0xff);
  }
  return length + text;
}

absl::StatusOr<int64_t> SafetensorsDataOffset(absl::string_view first_bytes, int64_t file_bytes) {
  if (static_cast<int64_t>(first_bytes.size()) < kSafetensorsLengthBytes ||
      file_bytes < kSafetensorsLengthBytes) {
    return Wrong(absl::StrCat("it has ", file_bytes, " bytes"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < static_cast<size_t>(kSafetensorsLengthBytes); ++i) {
    length |= static_cast<uint64_t>(static_cast<unsigned char>(first_bytes[i])) << (8 * i);
  }
  if (length < 2 || length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return Wrong(
        absl::StrCat("a header of ", length, " bytes; at most ", kMaxSafetensorsHeaderBytes));
  }
  const int64_t offset = kSafetensorsLengthBytes + static_cast<int64_t>(length);
  if (offset > file_bytes) {
    return Wrong(absl::StrCat("a header of ", length, " bytes in a file of ", file_bytes));
  }
  return offset;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t data_bytes) {
  if (static_cast<int64_t>(json.size()) > kMaxSafetensorsHeaderBytes) {
    return Wrong(absl::StrCat("a header of ", json.size(), " bytes"));
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    return Wrong(reader.error());
  }
  SafetensorsHeader header = std::move(reader.header());
  for (const SafetensorsEntry& tensor : header.tensors) {
    LASP_RETURN_IF_ERROR(CheckSize(tensor, data_bytes));
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  int64_t filled = 0;
  for (const SafetensorsEntry& tensor : header.tensors) {
    if (tensor.begin != filled) {
      return Wrong(absl::StrCat(
          QuotedName(tensor.name), " begins at byte ", tensor.begin,
          tensor.begin > filled ? ", behind a hole from byte " : ", within what goes to byte ",
          filled));
    }
    filled = tensor.end;
  }
  if (filled != data_bytes) {
    return Wrong(absl::StrCat("bytes ", filled, " to ", data_bytes, " belong to no tensor"));
  }
  return header;
}

}  // namespace lasp
