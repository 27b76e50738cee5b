// Messages to JSON and YAML and back, for every kind of field.
#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "client/document.h"
#include "client/proto_reader.h"
#include "client/yaml_document.h"
#include "google/rpc/error_details.pb.h"
#include "lasp/v1/step_metrics.pb.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {
namespace {

using google::protobuf::Message;
using ::testing::HasSubstr;

// One field of each scalar type, alone, optional, repeated and as a map's value.
class AllTypes : public ::testing::Test {
 protected:
  AllTypes() : pool_(google::protobuf::DescriptorPool::generated_pool()), factory_(&pool_) {
    factory_.SetDelegateToGeneratedFactory(true);
    google::protobuf::FileDescriptorProto file;
    file.set_name("all_types.proto");
    file.set_package("test");
    file.set_syntax("proto3");
    file.add_dependency("google/protobuf/timestamp.proto");
    file.add_dependency("google/protobuf/duration.proto");
    file.add_dependency("google/protobuf/any.proto");
    auto* message = file.add_message_type();
    message->set_name("All");
    auto* color = message->add_enum_type();
    color->set_name("BrightColor");
    for (const auto& [name, number] : {std::pair{"BRIGHT_COLOR_UNSPECIFIED", 0},
                                       {"BRIGHT_COLOR_RED", 1},
                                       {"BRIGHT_COLOR_BLUE", 7}}) {
      auto* value = color->add_value();
      value->set_name(name);
      value->set_number(number);
    }
    using Field = google::protobuf::FieldDescriptorProto;
    const std::vector<std::pair<std::string, Field::Type>> types = {
        {"int32", Field::TYPE_INT32},   {"int64", Field::TYPE_INT64},
        {"uint32", Field::TYPE_UINT32}, {"uint64", Field::TYPE_UINT64},
        {"sint64", Field::TYPE_SINT64}, {"fixed32", Field::TYPE_FIXED32},
        {"float", Field::TYPE_FLOAT},   {"double", Field::TYPE_DOUBLE},
        {"bool", Field::TYPE_BOOL},     {"string", Field::TYPE_STRING},
        {"bytes", Field::TYPE_BYTES},   {"enum", Field::TYPE_ENUM},
        {"time", Field::TYPE_MESSAGE},  {"duration", Field::TYPE_MESSAGE},
        {"any", Field::TYPE_MESSAGE},   {"self", Field::TYPE_MESSAGE},
    };
    for (const auto& [name, type] : types) {
      for (const char* prefix : {"one_", "many_"}) {
        auto* field = message->add_field();
        field->set_name(prefix + name);
        field->set_number(++number_);
        field->set_type(type);
        field->set_label(std::string(prefix) == "one_" ? Field::LABEL_OPTIONAL
                                                       : Field::LABEL_REPEATED);
        if (type == Field::TYPE_ENUM) {
          field->set_type_name(".test.All.BrightColor");
        } else if (type == Field::TYPE_MESSAGE) {
          field->set_type_name(name == "time"       ? ".google.protobuf.Timestamp"
                               : name == "duration" ? ".google.protobuf.Duration"
                               : name == "any"      ? ".google.protobuf.Any"
                                                    : ".test.All");
        }
      }
    }
    // optional int32 with presence, and two maps.
    auto* present = message->add_field();
    present->set_name("present");
    present->set_number(++number_);
    present->set_type(Field::TYPE_INT32);
    present->set_label(Field::LABEL_OPTIONAL);
    present->set_proto3_optional(true);
    present->set_oneof_index(0);
    message->add_oneof_decl()->set_name("_present");
    AddMap(message, "numbers", "NumbersEntry", Field::TYPE_INT64);
    AddMap(message, "names", "NamesEntry", Field::TYPE_STRING);
    const auto* built = pool_.BuildFile(file);
    EXPECT_NE(built, nullptr);
    type_ = built->FindMessageTypeByName("All");
  }

  void AddMap(google::protobuf::DescriptorProto* message, const std::string& name,
              const std::string& entry_name, google::protobuf::FieldDescriptorProto::Type key) {
    using Field = google::protobuf::FieldDescriptorProto;
    auto* entry = message->add_nested_type();
    entry->set_name(entry_name);
    entry->mutable_options()->set_map_entry(true);
    for (const auto& [field_name, type] : {std::pair{"key", key}, {"value", Field::TYPE_DOUBLE}}) {
      auto* field = entry->add_field();
      field->set_name(field_name);
      field->set_number(std::string(field_name) == "key" ? 1 : 2);
      field->set_type(type);
      field->set_label(Field::LABEL_OPTIONAL);
    }
    auto* field = message->add_field();
    field->set_name(name);
    field->set_number(++number_);
    field->set_type(Field::TYPE_MESSAGE);
    field->set_type_name(".test.All." + entry_name);
    field->set_label(Field::LABEL_REPEATED);
  }

  std::unique_ptr<Message> New() {
    return std::unique_ptr<Message>(factory_.GetPrototype(type_)->New());
  }

  std::unique_ptr<Message> FromText(const std::string& text) {
    auto message = New();
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, message.get()));
    return message;
  }

  // Every violation, one a line; empty where it was read.
  std::string Read(const std::string& yaml, Message* message) {
    const auto node = ParseYaml(yaml);
    if (!node.ok()) {
      return std::string(node.status().message());
    }
    std::vector<FieldViolation> violations;
    ReadMessage(*node, "", message, &violations);
    std::string text;
    for (const FieldViolation& violation : violations) {
      text += violation.field + ": " + violation.description + "\n";
    }
    return text;
  }

  void ExpectRoundTrips(const Message& message) {
    const Document document = ToDocument(message);
    for (const std::string& text : {JsonText(document), JsonLine(document), YamlText(document)}) {
      auto read = New();
      ASSERT_EQ(Read(text, read.get()), "") << text;
      EXPECT_EQ(message.DebugString(), read->DebugString()) << text;
    }
  }

  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_;
  const google::protobuf::Descriptor* type_ = nullptr;
  int number_ = 0;
};

TEST_F(AllTypes, OfAnEmptyMessageRoundTrip) { ExpectRoundTrips(*New()); }

TEST_F(AllTypes, AtTheirLimitsRoundTrip) {
  ExpectRoundTrips(*FromText(R"(
      one_int32: -2147483648 many_int32: [2147483647, 0, -1]
      one_int64: -9223372036854775808 many_int64: [9223372036854775807, 9007199254740993]
      one_uint32: 4294967295 one_uint64: 18446744073709551615 many_uint64: [0, 1]
      one_sint64: -5 one_fixed32: 7
      one_float: 0.1 many_float: [3.4028235e38, 1e-45, -0.0, inf]
      one_double: 0.1 many_double: [1.7976931348623157e308, 5e-324, 1e-8, -0.0, 123456789.123456789]
      one_bool: true many_bool: [true, false]
      one_enum: BRIGHT_COLOR_BLUE many_enum: [BRIGHT_COLOR_RED, BRIGHT_COLOR_UNSPECIFIED]
      one_bytes: "\000\377\n" many_bytes: ["", "a"]
      one_time { seconds: 1763756425 nanos: 500000000 } many_time { seconds: -62135596800 }
      many_time { seconds: 253402300799 nanos: 999999999 }
      one_duration { seconds: 1 nanos: 500000000 } many_duration { seconds: -1 nanos: -1 }
      many_duration { nanos: -500000000 } many_duration { seconds: 315576000000 }
      one_self { one_int32: 3 one_self { one_string: "deep" } } many_self {} many_self { one_bool: true }
      present: 0
      numbers { key: -3 value: 1.5 } numbers { key: 9223372036854775807 value: 2 }
      names { key: "" value: 1 } names { key: "a b: c" value: 2 } names { key: "true" value: inf }
  )"));
}

TEST_F(AllTypes, TextsOfEveryKindRoundTrip) {
  auto message = New();
  const auto* field = type_->FindFieldByName("many_string");
  for (const char* text : {"",
                           "plain",
                           "true",
                           "no",
                           "null",
                           "~",
                           "1",
                           "1e3",
                           "0x10",
                           "-",
                           "- a",
                           "a: b",
                           "#c",
                           "a #c",
                           "'",
                           "\"",
                           "\\",
                           "\n",
                           "two\nlines\n",
                           "\ttab",
                           " lead",
                           "trail ",
                           "\x01\x1f\x7f",
                           "{}",
                           "[]",
                           "*a",
                           "&a",
                           "!t",
                           "|",
                           ">",
                           "%",
                           "@",
                           "`",
                           "2026-11-21",
                           "NaN",
                           ".inf",
                           "caf\xC3\xA9",
                           "\xE2\x80\xA8",
                           "\xC2\x85",
                           "\xF0\x9F\x98\x80",
                           "\xEF\xBB\xBF"}) {
    message->GetReflection()->AddString(message.get(), field, text);
  }
  ExpectRoundTrips(*message);
}

TEST_F(AllTypes, NumbersThatAreNoneAreTexts) {
  const auto message = FromText("many_double: [nan, inf, -inf] one_float: nan");
  const Document document = ToDocument(*message);
  EXPECT_EQ(document["many_double"].dump(), R"(["NaN","Infinity","-Infinity"])");
  EXPECT_EQ(document["one_float"].dump(), R"("NaN")");
  ExpectRoundTrips(*message);
}

TEST_F(AllTypes, AnyIsDecodedWhereItsTypeIsKnown) {
  google::rpc::ErrorInfo info;
  info.set_reason("CORPUS_CHANGED");
  (*info.mutable_metadata())["file"] = "a.txt";
  auto message = New();
  google::protobuf::Any any;
  any.PackFrom(info);
  const auto* field = type_->FindFieldByName("one_any");
  message->GetReflection()->MutableMessage(message.get(), field)->CopyFrom(any);
  EXPECT_EQ(ToDocument(*message)["one_any"].dump(),
            R"({"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"CORPUS_CHANGED",)"
            R"("domain":"","metadata":{"file":"a.txt"}})");
  ExpectRoundTrips(*message);

  any.set_type_url("type.googleapis.com/other.Thing");
  any.set_value("\x01\x02");
  message->GetReflection()->MutableMessage(message.get(), field)->CopyFrom(any);
  EXPECT_EQ(ToDocument(*message)["one_any"].dump(),
            R"({"@type":"type.googleapis.com/other.Thing","value":"AQI="})");
  ExpectRoundTrips(*message);
}

TEST_F(AllTypes, EnumsAreReadWithAndWithoutPrefixAndPrintedWithout) {
  for (const char* text : {"BLUE", "BRIGHT_COLOR_BLUE", "7"}) {
    auto message = New();
    ASSERT_EQ(Read(std::string("one_enum: ") + text, message.get()), "");
    EXPECT_EQ(ToDocument(*message)["one_enum"], "BLUE");
  }
  auto message = New();
  EXPECT_THAT(Read("one_enum: BLU", message.get()),
              HasSubstr("expected one of RED, BLUE, got 'BLU'; did you mean 'BLUE'?"));
  ASSERT_EQ(Read("one_enum: 99", message.get()), "");  // of a newer server
  EXPECT_EQ(ToDocument(*message)["one_enum"], "99");
}

TEST_F(AllTypes, WholeNumbersMayBeWrittenInSeveralWays) {
  for (const char* text : {"1000", "1e3", "1000.0", "0x3e8", "\"1000\"", "+1000"}) {
    auto message = New();
    ASSERT_EQ(Read(std::string("one_int64: ") + text, message.get()), "") << text;
    EXPECT_EQ(ToDocument(*message)["one_int64"], 1000) << text;
  }
}

struct WrongCase {
  const char* yaml;
  const char* error;
};

TEST_F(AllTypes, WrongValuesAreRefusedWithPathLineAndExpectation) {
  for (const WrongCase& wrong : {
           WrongCase{"\none_int32: 2147483648",
                     "one_int32: expected a whole number from -2147483648 to 2147483647, got "
                     "'2147483648' (line 2)"},
           {"one_int32: abc", "one_int32: expected a whole number, got 'abc' (line 1)"},
           {"one_int32: 1.5", "expected a whole number, got '1.5'"},
           {"one_int32: [1]", "expected a whole number, got a list"},
           {"one_int64: 9223372036854775808", "to 9223372036854775807, got"},
           {"one_int64: 1e19", "expected a whole number, got '1e19'"},
           {"one_uint32: -1", "expected a whole number from 0 to 4294967295, got '-1'"},
           {"one_uint64: 18446744073709551616", "to 18446744073709551615"},
           {"one_double: fast", "expected a number, got 'fast'"},
           {"one_double: 1e999", "expected a number below 1.8e308"},
           {"one_double: 0x1p3", "expected a number"},
           {"one_float: 1e39", "expected a number below 3.4e38"},
           {"one_bool: yes", "expected true or false, got 'yes'"},
           {"one_bool: \"true\"", "expected true or false"},
           {"one_bool: 1", "expected true or false"},
           {"one_string: {a: b}", "expected a text, got a map"},
           {"one_string: \"\\xff\"\none_bytes: '*'",
            "one_bytes: expected bytes in base64, got '*'"},
           {"one_time: yesterday", "'yesterday' is not a time such as"},
           {"one_duration: 5", "'5' is not a duration such as 1.5s"},
           {"one_duration: 1h5s", "is not a duration"},
           {"one_self: 5", "one_self: expected a map of fields, got '5'"},
           {"many_int32: 5", "many_int32: expected a list, got '5' (line 1)"},
           {"many_int32: [1, x]", "many_int32[1]: expected a whole number, got 'x'"},
           {"many_int32: [1, ~]", "many_int32[1]: expected a whole number, got nothing"},
           {"many_self: [{one_int: 1}]", "many_self[0].one_int: unknown field; did you mean"},
           {"numbers: {a: 1}", "numbers.a: expected a whole number, got 'a'"},
           {"names: {a: b}", "names.a: expected a number, got 'b'"},
           {"names: {a: 1, a: 2}", "names.a: given twice"},
           {"names: [a]", "names: expected a map, got a list"},
           {"one_int32: 1\none_bool: true\none_int32: 2", "one_int32: given twice (line 3)"},
           {"one_self:\n  one_sting: a",
            "one_self.one_sting: unknown field; did you mean "
            "'one_string'? (line 2)"},
           {"zzz: 1", "zzz: unknown field (line 1)"},
           {"one_any: {'@type': a/b.C, x: 1}", "an unknown type needs"},
           {"? [a]\n: 1", "a key must be a plain word"},
           {"a: 1\n---\nb: 2", "line 2: a second document"},
           {"&a,", "line 1: a second document"},
           {"one_string: \"open", "line 1"},
           {"a: *nowhere", "line 1"},
       }) {
    auto message = New();
    EXPECT_THAT(Read(wrong.yaml, message.get()), HasSubstr(wrong.error)) << wrong.yaml;
  }
}

TEST_F(AllTypes, NullLeavesAFieldUnset) {
  auto message = FromText("present: 4 one_string: 'x'");
  ASSERT_EQ(Read("present: null\none_string:\nmany_int32: ~", message.get()), "");
  EXPECT_FALSE(ToDocument(*message).contains("present"));
  EXPECT_EQ(ToDocument(*message)["one_string"], "");
}

TEST(YamlDocument, AliasesThatStandForBillionsAreRefused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 0; j < 9; ++j) {
      text += ", " + before;
    }
    text += "]\n";
  }
  EXPECT_THAT(std::string(ParseYaml(text).status().message()), HasSubstr("too large"));
}

TEST(YamlDocument, DepthIsBounded) {
  const std::string text = std::string(200, '[') + std::string(200, ']');
  EXPECT_FALSE(ParseYaml(text).ok());
}

TEST(YamlDocument, JsonIsRead) {
  const auto node =
      ParseYaml("{\n\t\"a\": [1, true, null],\n\t\"b\": \"\\ud83d\\ude00 \\\\ud83d \\/\"\n}");
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->items[1].text, "\xF0\x9F\x98\x80 \\ud83d /");
  EXPECT_TRUE(node->items[1].quoted);
  EXPECT_EQ(node->items[1].key_line, 3);
  EXPECT_EQ(node->items[0].items[2].kind, YamlNode::Kind::kNull);
}

TEST(ProtoDocument, OptionalAndMessageFieldsOnlyWhenSet) {
  lasp::v1::StepMetrics step;
  step.set_step(3);
  step.set_loss(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(
      JsonLine(ToDocument(step)),
      R"({"step":3,"loss":"NaN","gradient_norm":0.0,"learning_rate":0.0,)"
      R"("tokens_per_second":0.0,"step_seconds":0.0,"token_count":0,"generation":0,)"
      R"("skipped":false,"sp_wait_seconds":0.0,"gradient_sync_wait_seconds":0.0,)"
      R"("data_seconds":0.0,"forward_seconds":0.0,"backward_seconds":0.0,"optimizer_seconds":0.0,"outlier":false})");
  step.set_eval_loss(1.5);
  step.mutable_time()->set_seconds(1);
  EXPECT_EQ(ToDocument(step)["eval_loss"], 1.5);
  EXPECT_EQ(ToDocument(step)["time"], "1970-01-01T00:00:01Z");
}

TEST(ProtoDocument, ReasonsOfFailureAreDecoded) {
  lasp::v1::TrainingJob job;
  job.set_state(lasp::v1::TrainingJob::STATE_FAILED);
  job.mutable_error()->set_code(9);
  google::rpc::ErrorInfo info;
  info.set_reason("LOSS_NOT_FINITE");
  job.mutable_error()->add_details()->PackFrom(info);
  const Document document = ToDocument(job);
  EXPECT_EQ(document["state"], "FAILED");
  EXPECT_EQ(document["labels"].dump(), "{}");
  EXPECT_EQ(document["transitions"].dump(), "[]");
  EXPECT_FALSE(document.contains("progress"));
  EXPECT_EQ(document["error"]["details"][0]["reason"], "LOSS_NOT_FINITE");
}

TEST(ProtoDocument, BytesThatAreNotUtf8DoNotThrow) {
  EXPECT_EQ(JsonLine(Document("a\xff")), "\"a\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace lasp::client
