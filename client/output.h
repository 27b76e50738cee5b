// Messages on stdout in the form that was asked for.
#pragma once

#include <google/protobuf/message.h>

#include <functional>
#include <string>
#include <vector>

#include "client/document.h"
#include "client/session.h"

namespace lasp::client {

// One message: JSON and YAML of it, its resource name, or `table()` where a table is asked for.
void PrintMessage(const google::protobuf::Message& message, const std::string& name,
                  const std::function<std::string()>& table, Session* session);

// `document` with a line break at the end, in JSON or YAML.
std::string DocumentText(const Document& document, OutputFormat format);

// One message a line, for streams.
std::string MessageLine(const google::protobuf::Message& message);

// An array in JSON, a list in YAML.
std::string MessageArray(const std::vector<const google::protobuf::Message*>& messages,
                         OutputFormat format);

template <typename Message>
std::string MessageArray(const std::vector<Message>& messages, OutputFormat format) {
  std::vector<const google::protobuf::Message*> pointers;
  pointers.reserve(messages.size());
  for (const Message& message : messages) {
    pointers.push_back(&message);
  }
  return MessageArray(pointers, format);
}

inline bool IsTable(OutputFormat format) {
  return format == OutputFormat::kTable || format == OutputFormat::kWide;
}

}  // namespace lasp::client
