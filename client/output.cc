#include "client/output.h"

namespace lasp::client {

std::string DocumentText(const Document& document, OutputFormat format) {
  return format == OutputFormat::kYaml ? YamlText(document) : JsonText(document) + "\n";
}

void PrintMessage(const google::protobuf::Message& message, const std::string& name,
                  const std::function<std::string()>& table, Session* session) {
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    session->console().Print(name + "\n");
  } else if (IsTable(format)) {
    session->console().Print(table());
  } else {
    session->console().Print(DocumentText(ToDocument(message), format));
  }
}

std::string MessageLine(const google::protobuf::Message& message) {
  return JsonLine(ToDocument(message)) + "\n";
}

std::string MessageArray(const std::vector<const google::protobuf::Message*>& messages,
                         OutputFormat format) {
  Document array = Document::array();
  for (const auto* message : messages) {
    array.push_back(ToDocument(*message));
  }
  return DocumentText(array, format);
}

}  // namespace lasp::client
