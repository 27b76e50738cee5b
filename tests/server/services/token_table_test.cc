// The token file, and what a grant of it allows.
#include "server/token_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/access_control.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Of "one" and "two".
constexpr char kOne[] = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
constexpr char kTwo[] = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

TEST(TokenTable, FindsWhatATokenGrants) {
  const auto table =
      TokenTable::Parse(absl::StrCat("# a comment\n\nann editor default,nlp 2030-01-01T00:00:00Z ",
                                     kOne, "\n", "  root  admin\t*  never  ", kTwo, "\r\n"));
  LASP_ASSERT_OK(table);
  EXPECT_EQ(table->size(), 2u);
  const GrantPtr ann = table->Find("one");
  ASSERT_NE(ann, nullptr);
  EXPECT_EQ(ann->name, "ann");
  EXPECT_EQ(ann->role, Role::kEditor);
  EXPECT_TRUE(ann->Includes("nlp"));
  EXPECT_FALSE(ann->Includes("nl"));
  EXPECT_EQ(absl::FormatTime(ann->end, absl::UTCTimeZone()), "2030-01-01T00:00:00+00:00");
  EXPECT_TRUE(ann->MaySeeJob("projects/nlp/trainingJobs/a"));
  EXPECT_FALSE(ann->MaySeeJob("projects/nlp2/trainingJobs/a"));
  const GrantPtr root = table->Find("two");
  ASSERT_NE(root, nullptr);
  EXPECT_TRUE(root->all_projects);
  EXPECT_EQ(root->end, absl::InfiniteFuture());
  EXPECT_EQ(table->FindByName("root"), root);
  for (const char* unknown : {"", "three", "one ", kOne}) {
    EXPECT_EQ(table->Find(unknown), nullptr) << unknown;
  }
}

TEST(TokenTable, RefusesWhatItDoesNotUnderstandAndSaysNoHash) {
  const struct {
    std::string line;
    std::string told;
  } kCases[] = {
      {"ann editor default never", "4 columns"},
      {absl::StrCat("ann editor default never ", kTwo, " more"), "6 columns"},
      {absl::StrCat("Ann editor default never ", kTwo), "name"},
      {absl::StrCat("ann owner default never ", kTwo), "owner"},
      {absl::StrCat("ann editor default, never ", kTwo), "project"},
      {absl::StrCat("ann editor *,nlp never ", kTwo), "project"},
      {absl::StrCat("ann editor default tomorrow ", kTwo), "tomorrow"},
      {absl::StrCat("ann editor default never ", kTwo, "0"), "SHA-256"},
      {"ann editor default never plaintext-token", "SHA-256"},
      // Columns that have changed places.
      {absl::StrCat("ann ", kTwo, " default never editor"), "no role"},
      {absl::StrCat("ann editor ", kTwo, "/ never default"), "no project's id"},
      {absl::StrCat("ann editor default ", kTwo, " never"), "no time"},
      {absl::StrCat("first editor default never ", kTwo), "twice"},
      {absl::StrCat("ann editor default never ", kOne), "same token as first"},
  };

  for (const auto& wrong : kCases) {
    const auto table =
        TokenTable::Parse(absl::StrCat("first viewer a never ", kOne, "\n", wrong.line));
    ASSERT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << wrong.line;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr("line 2"));
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(wrong.told));
    for (const char* secret : {kOne, kTwo, "plaintext-token"}) {
      EXPECT_THAT(std::string(table.status().message()), Not(HasSubstr(secret)));
    }
  }
}

TEST(AccessControl, AsksForTheRoleAndTheProject) {
  Grant editor{.name = "ann", .role = Role::kEditor, .projects = {"nlp"}};
  const AccessRule* get = FindAccessRule("/lasp.v1.TrainingJobService/GetTrainingJob");
  const AccessRule* create = FindAccessRule("/lasp.v1.TrainingJobService/CreateTrainingJob");
  const AccessRule* drain = FindAccessRule("/lasp.v1.WorkerAdminService/DrainWorker");
  const AccessRule* workers = FindAccessRule("/lasp.v1.WorkerAdminService/ListWorkers");
  LASP_EXPECT_OK(AccessControl::Authorize(editor, *get, "projects/nlp/trainingJobs/a"));
  LASP_EXPECT_OK(AccessControl::Authorize(editor, *create, "projects/nlp"));
  LASP_EXPECT_OK(AccessControl::Authorize(editor, *get, "projects/-"));
  LASP_EXPECT_OK(AccessControl::Authorize(editor, *workers, ""));
  const absl::Status foreign =
      AccessControl::Authorize(editor, *get, "projects/nlp2/trainingJobs/a");
  EXPECT_EQ(foreign.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrorReason(foreign), "PROJECT_NOT_GRANTED");
  EXPECT_THAT(std::string(foreign.message()), HasSubstr("viewer in project nlp2"));
  editor.role = Role::kViewer;
  EXPECT_EQ(ErrorReason(AccessControl::Authorize(editor, *create, "projects/nlp")), "ROLE_TOO_LOW");
  editor.role = Role::kAdmin;
  EXPECT_EQ(ErrorReason(AccessControl::Authorize(editor, *drain, "")), "PROJECT_NOT_GRANTED");
  editor.all_projects = true;
  LASP_EXPECT_OK(AccessControl::Authorize(editor, *drain, ""));
  // What lies in no project is not let through, whatever its method would say to it.
  for (const char* nowhere : {"", "nlp", "projects/", "projects//trainingJobs/a", "projects/N",
                              "workers/w", "xprojects/nlp/trainingJobs/a"}) {
    EXPECT_EQ(AccessControl::Authorize(editor, *get, nowhere).code(),
              absl::StatusCode::kInvalidArgument)
        << nowhere;
  }
}

}  // namespace
}  // namespace lasp::server
