// Manual pages: whole, and safe from what roff would take for its own.
#include "client/manual_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"

namespace lasp::client {
namespace {

using lasp::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const ManualEdition kEdition{.version = "1.2.3", .date = "2026-11-22"};

std::string Dashed(const std::string& text) { return absl::StrReplaceAll(text, {{"-", "\\-"}}); }

TEST(ManualPage, HasEveryCommandAndFlag) {
  const std::string program = ProgramPage(kEdition);
  EXPECT_THAT(program, StartsWith(".TH LASP 1 2026-11-22 \"lasp 1.2.3\" \"lasp manual\"\n"));
  for (const FlagSpec& flag : GlobalFlags()) {
    EXPECT_THAT(program, HasSubstr(absl::StrCat("\\fB", Dashed(flag.name), "\\fR")));
  }
  for (const CommandSpec& command : Commands()) {
    EXPECT_THAT(program, HasSubstr(absl::StrCat(".BR lasp\\-", Dashed(command.name), " (1)\n")));
    const std::string page = CommandPage(command, kEdition);
    EXPECT_THAT(page, HasSubstr(absl::StrCat(".B lasp ", Dashed(command.name), "\n")));
    for (const FlagSpec& flag : command.flags) {
      EXPECT_THAT(page, HasSubstr(absl::StrCat("\\fB", Dashed(flag.name), "\\fR"))) << command.name;
    }
    for (const std::string& example : command.examples) {
      EXPECT_THAT(page, HasSubstr(Dashed(example))) << command.name;
    }
  }
}

TEST(ManualPage, KeepsTextFromRoff) {
  CommandSpec command;
  command.name = "odd";
  command.summary = "Back\\slash";
  command.details = ".SH not a heading\n'nor a request";
  EXPECT_THAT(CommandPage(command, kEdition),
              AllOf(HasSubstr("Back\\eslash"), HasSubstr("\n\\&.SH not a heading\n"),
                    HasSubstr("\n\\&'nor a request\n")));
}

TEST(ManualPage, IsMadeOfADaemonsHelp) {
  const auto page =
      DaemonPage("lasp-x",
                 "lasp-x: does things.\n\n  lasp-x --data_dir=DIR [flags]\n\nMore.\n\n"
                 "Flags:\n  --data_dir (default: none)\n      A folder - required.\n"
                 "  --version\n  --help\n",
                 kEdition);
  LASP_ASSERT_OK(page);
  EXPECT_THAT(*page, StartsWith(".TH LASP\\-X 8 "));
  EXPECT_THAT(*page, HasSubstr("lasp\\-x \\- does things\n"));
  EXPECT_THAT(*page,
              HasSubstr(".TP\n\\fB\\-\\-data_dir\\fR (default: none)\nA folder \\- required.\n"));
  EXPECT_THAT(*page, HasSubstr("\\fB\\-\\-version\\fR\nPrints the version.\n"));
  EXPECT_THAT(DaemonPage("lasp-x", "usage: lasp-x\n", kEdition),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 'lasp-x: ...'")));
}

}  // namespace
}  // namespace lasp::client
