#include "client/proto_reader.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <set>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/nearest_name.h"
#include "client/scalar_reader.h"
#include "client/time_text.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kTypeKey[] = "@type";

void Violate(const std::string& path, int line, absl::string_view what,
             std::vector<FieldViolation>* violations) {
  violations->push_back(
      {path, line > 0 ? absl::StrCat(what, " (line ", line, ")") : std::string(what)});
}

// Where a scalar goes: the field itself, or one more element of it.
struct Target {
  Message* message;
  const FieldDescriptor& field;

  template <typename Value>
  void Put(void (Reflection::*set)(Message*, const FieldDescriptor*, Value) const,
           void (Reflection::*add)(Message*, const FieldDescriptor*, Value) const,
           Value value) const {
    const Reflection* reflection = message->GetReflection();
    (reflection->*(field.is_repeated() ? add : set))(message, &field, std::move(value));
  }
};

template <typename Limits>
absl::StatusOr<Limits> ReadInteger(const YamlNode& node) {
  if constexpr (std::is_signed_v<Limits>) {
    LASP_ASSIGN_OR_RETURN(const int64_t value, ReadSigned(node, std::numeric_limits<Limits>::min(),
                                                          std::numeric_limits<Limits>::max()));
    return static_cast<Limits>(value);
  } else {
    LASP_ASSIGN_OR_RETURN(const uint64_t value,
                          ReadUnsigned(node, std::numeric_limits<Limits>::max()));
    return static_cast<Limits>(value);
  }
}

absl::Status PutScalar(const YamlNode& node, const Target& target) {
  switch (target.field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      LASP_ASSIGN_OR_RETURN(const auto value, ReadInteger<int32_t>(node));
      target.Put(&Reflection::SetInt32, &Reflection::AddInt32, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      LASP_ASSIGN_OR_RETURN(const auto value, ReadInteger<int64_t>(node));
      target.Put(&Reflection::SetInt64, &Reflection::AddInt64, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      LASP_ASSIGN_OR_RETURN(const auto value, ReadInteger<uint32_t>(node));
      target.Put(&Reflection::SetUInt32, &Reflection::AddUInt32, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      LASP_ASSIGN_OR_RETURN(const auto value, ReadInteger<uint64_t>(node));
      target.Put(&Reflection::SetUInt64, &Reflection::AddUInt64, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      LASP_ASSIGN_OR_RETURN(const double value, ReadDouble(node));
      target.Put(&Reflection::SetDouble, &Reflection::AddDouble, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_FLOAT: {
      LASP_ASSIGN_OR_RETURN(const double value, ReadDouble(node));
      // The first double that no longer rounds to a finite float.
      constexpr double kFloatOverflow = 0x1.ffffffp127;
      if (std::isfinite(value) && std::fabs(value) >= kFloatOverflow) {
        return absl::InvalidArgumentError(
            absl::StrCat("expected a number below 3.4e38, got ", DescribeNode(node)));
      }
      target.Put(&Reflection::SetFloat, &Reflection::AddFloat, static_cast<float>(value));
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      LASP_ASSIGN_OR_RETURN(const bool value, ReadBool(node));
      target.Put(&Reflection::SetBool, &Reflection::AddBool, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      LASP_ASSIGN_OR_RETURN(const int value, ReadEnum(node, *target.field.enum_type()));
      target.Put(&Reflection::SetEnumValue, &Reflection::AddEnumValue, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const bool bytes = target.field.type() == FieldDescriptor::TYPE_BYTES;
      LASP_ASSIGN_OR_RETURN(std::string value, bytes ? ReadBytes(node) : ReadString(node));
      target.Put(&Reflection::SetString, &Reflection::AddString, std::move(value));
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return absl::InternalError("not a scalar field");
}

// Times and durations are texts. Returns false for other messages.
bool ReadTime(const YamlNode& node, const std::string& path, Message* message,
              std::vector<FieldViolation>* violations) {
  absl::Status status;
  const auto read = [&](auto parse, auto* into) {
    const auto text = ReadString(node);
    const auto value = text.ok() ? parse(*text) : text.status();
    if (value.ok()) {
      *into = *value;
    } else {
      status = value.status();
    }
  };
  if (auto* timestamp = dynamic_cast<google::protobuf::Timestamp*>(message)) {
    read([](const std::string& text) { return ParseTimestamp(text); }, timestamp);
  } else if (auto* duration = dynamic_cast<google::protobuf::Duration*>(message)) {
    read([](const std::string& text) { return ParseDuration(text); }, duration);
  } else {
    return false;
  }
  if (!status.ok()) {
    Violate(path, node.line, status.message(), violations);
  }
  return true;
}

// {"@type": url, …}: the fields of a known type, or the bytes of an unknown one as `value`.
void ReadAny(const YamlNode& node, const std::string& path, google::protobuf::Any* any,
             std::vector<FieldViolation>* violations) {
  YamlNode rest = node;
  rest.items.clear();
  const YamlNode* value = nullptr;
  for (const YamlNode& item : node.items) {
    if (item.key == kTypeKey) {
      any->set_type_url(item.text);
      continue;
    }
    value = item.key == "value" ? &item : value;
    rest.items.push_back(item);
  }
  const std::string& url = any->type_url();
  const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
      url.substr(url.rfind('/') + 1));
  if (type != nullptr) {
    const std::unique_ptr<Message> message(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    ReadMessage(rest, path, message.get(), violations);
    any->set_value(message->SerializeAsString());
    return;
  }
  if (value == nullptr || rest.items.size() != 1) {
    Violate(path, node.line, "an unknown type needs \"@type\" and \"value\" (base64), and no more",
            violations);
    return;
  }
  const auto bytes = ReadBytes(*value);
  if (!bytes.ok()) {
    Violate(JoinPath(path, "value"), value->line, bytes.status().message(), violations);
    return;
  }
  any->set_value(*bytes);
}

void ReadMessageValue(const YamlNode& node, const std::string& path, Message* message,
                      std::vector<FieldViolation>* violations) {
  if (ReadTime(node, path, message, violations)) {
    return;
  }
  auto* any = dynamic_cast<google::protobuf::Any*>(message);
  if (any != nullptr && node.kind == YamlNode::Kind::kMap) {
    ReadAny(node, path, any, violations);
    return;
  }
  ReadMessage(node, path, message, violations);
}

void ReadList(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
              Message* message, std::vector<FieldViolation>* violations) {
  if (node.kind != YamlNode::Kind::kList) {
    Violate(path, node.line, absl::StrCat("expected a list, got ", DescribeNode(node)), violations);
    return;
  }
  for (size_t i = 0; i < node.items.size(); ++i) {
    const YamlNode& item = node.items[i];
    const std::string item_path = absl::StrCat(path, "[", i, "]");
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ReadMessageValue(item, item_path, message->GetReflection()->AddMessage(message, &field),
                       violations);
    } else if (const absl::Status status = PutScalar(item, {message, field}); !status.ok()) {
      Violate(item_path, item.line, status.message(), violations);
    }
  }
}

// Each entry of a map field is a message of the fields 1 (key) and 2 (value).
void ReadMap(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
             Message* message, std::vector<FieldViolation>* violations) {
  if (node.kind != YamlNode::Kind::kMap) {
    Violate(path, node.line, absl::StrCat("expected a map, got ", DescribeNode(node)), violations);
    return;
  }
  std::set<std::string> seen;
  for (const YamlNode& item : node.items) {
    const std::string item_path = JoinPath(path, item.key);
    if (!seen.insert(item.key).second) {
      Violate(item_path, item.key_line, "given twice", violations);
      continue;
    }
    YamlNode key;
    key.kind = YamlNode::Kind::kScalar;
    key.text = item.key;
    Message* entry = message->GetReflection()->AddMessage(message, &field);
    const absl::Status status = PutScalar(key, {entry, *field.message_type()->field(0)});
    if (!status.ok()) {
      Violate(item_path, item.key_line, status.message(), violations);
    }
    if (item.kind == YamlNode::Kind::kNull) {
      Violate(item_path, item.line, "has no value", violations);
      continue;
    }
    ReadField(item, item_path, *field.message_type()->field(1), entry, violations);
  }
}

}  // namespace

std::vector<std::string> FieldNames(const google::protobuf::Descriptor& type) {
  std::vector<std::string> names;
  names.reserve(static_cast<size_t>(type.field_count()));
  for (int i = 0; i < type.field_count(); ++i) {
    names.push_back(type.field(i)->name());
  }
  return names;
}

std::string JoinPath(absl::string_view parent, absl::string_view name) {
  return parent.empty() ? std::string(name) : absl::StrCat(parent, ".", name);
}

void ReadField(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
               Message* message, std::vector<FieldViolation>* violations) {
  message->GetReflection()->ClearField(message, &field);
  if (node.kind == YamlNode::Kind::kNull) {
    return;
  }
  if (field.is_map()) {
    ReadMap(node, path, field, message, violations);
  } else if (field.is_repeated()) {
    ReadList(node, path, field, message, violations);
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    ReadMessageValue(node, path, message->GetReflection()->MutableMessage(message, &field),
                     violations);
  } else if (const absl::Status status = PutScalar(node, {message, field}); !status.ok()) {
    Violate(path, node.line, status.message(), violations);
  }
}

void ReadMessage(const YamlNode& node, const std::string& path, Message* message,
                 std::vector<FieldViolation>* violations) {
  if (node.kind == YamlNode::Kind::kNull) {
    return;
  }
  if (node.kind != YamlNode::Kind::kMap) {
    Violate(path, node.line, absl::StrCat("expected a map of fields, got ", DescribeNode(node)),
            violations);
    return;
  }
  std::set<std::string> seen;
  for (const YamlNode& item : node.items) {
    const std::string item_path = JoinPath(path, item.key);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(item.key);
    if (!seen.insert(item.key).second) {
      Violate(item_path, item.key_line, "given twice", violations);
    } else if (field == nullptr) {
      Violate(item_path, item.key_line,
              absl::StrCat("unknown field",
                           Suggestion(item.key, FieldNames(*message->GetDescriptor()))),
              violations);
    } else {
      ReadField(item, item_path, *field, message, violations);
    }
  }
}

}  // namespace lasp::client
