#include "client/yaml_document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <exception>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/surrogate_pairs.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

constexpr int kMaxNodes = 100'000;
constexpr int kMaxDepth = 64;
constexpr size_t kMaxShownScalar = 40;

// Copies yaml-cpp's tree. Aliases share nodes there and are copied out here, so the count is
// bounded against a few lines that stand for billions of nodes.
class Converter {
 public:
  absl::StatusOr<YamlNode> Convert(const YAML::Node& source, int depth) {
    YamlNode node;
    node.line = source.Mark().line + 1;
    if (++count_ > kMaxNodes || depth > kMaxDepth) {
      return absl::InvalidArgumentError(absl::StrCat("line ", node.line, ": too large: more than ",
                                                     kMaxNodes, " values or more than ", kMaxDepth,
                                                     " levels"));
    }
    switch (source.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return node;
      case YAML::NodeType::Scalar:
        node.kind = YamlNode::Kind::kScalar;
        node.text = source.Scalar();
        node.quoted = source.Tag() == "!" || source.Tag() == "tag:yaml.org,2002:str";
        return node;
      case YAML::NodeType::Sequence:
        node.kind = YamlNode::Kind::kList;
        for (const auto& item : source) {
          LASP_ASSIGN_OR_RETURN(YamlNode child, Convert(item, depth + 1));
          node.items.push_back(std::move(child));
        }
        return node;
      case YAML::NodeType::Map:
        node.kind = YamlNode::Kind::kMap;
        for (const auto& entry : source) {
          LASP_ASSIGN_OR_RETURN(YamlNode child, Convert(entry.second, depth + 1));
          child.key_line = entry.first.Mark().line + 1;
          if (!entry.first.IsScalar()) {
            return absl::InvalidArgumentError(
                absl::StrCat("line ", child.key_line, ": a key must be a plain word"));
          }
          child.key = entry.first.Scalar();
          node.items.push_back(std::move(child));
        }
        return node;
    }
    return node;
  }

 private:
  int count_ = 0;
};

// Where documents begin, and nothing else.
class DocumentStarts final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { last_line_ = mark.line + 1; }

  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& /*mark*/, YAML::anchor_t /*anchor*/) override {}

  void OnAlias(const YAML::Mark& /*mark*/, YAML::anchor_t /*anchor*/) override {}

  void OnScalar(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& /*value*/) override {}

  void OnSequenceStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/,
                       YAML::anchor_t /*anchor*/, YAML::EmitterStyle::value /*style*/) override {}

  void OnSequenceEnd() override {}

  void OnMapStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {}

  void OnMapEnd() override {}

  int last_line() const { return last_line_; }

 private:
  int last_line_ = 0;
};

// Not by YAML::LoadAll: of a text such as `&a,` yaml-cpp 0.7 reads empty documents without end.
absl::Status CheckOneDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  DocumentStarts documents;
  if (parser.HandleNextDocument(documents) && parser.HandleNextDocument(documents)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "line ", documents.last_line(), ": a second document; give each job a file of its own"));
  }
  return absl::OkStatus();
}

absl::Status SyntaxError(const YAML::Exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("line ", error.mark.line + 1, ", column ",
                                                 error.mark.column + 1, ": ", error.msg));
}

}  // namespace

std::string DescribeNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  const bool cut = node.text.size() > kMaxShownScalar;
  return absl::StrCat("'", node.text.substr(0, kMaxShownScalar), cut ? "..." : "", "'");
}

// The fence: yaml-cpp throws, nothing above this function does.
absl::StatusOr<YamlNode> ParseYaml(absl::string_view text) {
  try {
    const std::string joined = JoinSurrogatePairs(text);
    LASP_RETURN_IF_ERROR(CheckOneDocument(joined));
    return Converter().Convert(YAML::Load(joined), 0);
  } catch (const YAML::Exception& error) {
    return SyntaxError(error);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace lasp::client
