#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <charconv>
#include <cmath>
#include <map>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/document.h"
#include "client/enum_names.h"
#include "client/time_text.h"

namespace lasp::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

Document NumberDocument(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value > 0 ? "Infinity" : "-Infinity";
  }
  return value;
}

// 0.1f is 0.1, not 0.10000000149011612: the shortest text that gives the float back.
Document FloatDocument(float value) {
  if (!std::isfinite(value)) {
    return NumberDocument(value);
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  double shortest = 0;
  std::from_chars(buffer, end.ptr, shortest);
  return shortest;
}

Document AnyDocument(const google::protobuf::Any& any) {
  const std::string& url = any.type_url();
  const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
      url.substr(url.rfind('/') + 1));
  Document document = Document::object();
  document["@type"] = url;
  if (type != nullptr) {
    const std::unique_ptr<Message> message(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    if (message->ParseFromString(any.value())) {
      document.update(ToDocument(*message));
      return document;
    }
  }
  document["value"] = absl::Base64Escape(any.value());
  return document;
}

Document MessageDocument(const Message& message) {
  if (const auto* timestamp = dynamic_cast<const google::protobuf::Timestamp*>(&message)) {
    return FormatTimestamp(*timestamp);
  }
  if (const auto* duration = dynamic_cast<const google::protobuf::Duration*>(&message)) {
    return FormatDuration(*duration);
  }
  if (const auto* any = dynamic_cast<const google::protobuf::Any*>(&message)) {
    return AnyDocument(*any);
  }
  return ToDocument(message);
}

// The field's value, or its element `index` where that is not negative.
Document ValueDocument(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const auto get = [&](auto one, auto element) {
    return index < 0 ? (reflection.*one)(message, &field)
                     : (reflection.*element)(message, &field, index);
  };
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return get(&Reflection::GetInt32, &Reflection::GetRepeatedInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return get(&Reflection::GetInt64, &Reflection::GetRepeatedInt64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return get(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return get(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberDocument(get(&Reflection::GetDouble, &Reflection::GetRepeatedDouble));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FloatDocument(get(&Reflection::GetFloat, &Reflection::GetRepeatedFloat));
    case FieldDescriptor::CPPTYPE_BOOL:
      return get(&Reflection::GetBool, &Reflection::GetRepeatedBool);
    case FieldDescriptor::CPPTYPE_ENUM:
      return ShortEnumName(*field.enum_type(),
                           get(&Reflection::GetEnumValue, &Reflection::GetRepeatedEnumValue));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string value = get(&Reflection::GetString, &Reflection::GetRepeatedString);
      return field.type() == FieldDescriptor::TYPE_BYTES ? absl::Base64Escape(value) : value;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageDocument(index < 0 ? reflection.GetMessage(message, &field)
                                       : reflection.GetRepeatedMessage(message, &field, index));
  }
  return nullptr;
}

// In the order of the keys, so that two outputs of one message are equal.
Document MapDocument(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  std::map<std::string, Document> sorted;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    const Document key = ValueDocument(entry, *field.message_type()->field(0), -1);
    sorted[key.is_string() ? key.get<std::string>() : key.dump()] =
        ValueDocument(entry, *field.message_type()->field(1), -1);
  }
  Document map = Document::object();
  for (auto& [key, value] : sorted) {
    map[key] = std::move(value);
  }
  return map;
}

}  // namespace

Document ToDocument(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  Document document = Document::object();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.is_map()) {
      document[field.name()] = MapDocument(message, field);
    } else if (field.is_repeated()) {
      Document list = Document::array();
      for (int j = 0; j < reflection.FieldSize(message, &field); ++j) {
        list.push_back(ValueDocument(message, field, j));
      }
      document[field.name()] = std::move(list);
    } else if (!field.has_presence() || reflection.HasField(message, &field)) {
      document[field.name()] = ValueDocument(message, field, -1);
    }
  }
  return document;
}

}  // namespace lasp::client
