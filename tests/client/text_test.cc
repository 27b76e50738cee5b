// Texts for people: times, numbers, widths, suggestions, tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/nearest_name.h"
#include "client/number_text.h"
#include "client/output_table.h"
#include "client/terminal.h"
#include "client/terminal_text.h"
#include "client/time_text.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

TEST(FormatAge, TakesTwoUnitsAtMost) {
  EXPECT_EQ(FormatAge(absl::Seconds(-5)), "0s");
  EXPECT_EQ(FormatAge(absl::Seconds(119)), "119s");
  EXPECT_EQ(FormatAge(absl::Minutes(3)), "3m");
  EXPECT_EQ(FormatAge(absl::Seconds(185)), "3m5s");
  EXPECT_EQ(FormatAge(absl::Seconds(605)), "10m");
  EXPECT_EQ(FormatAge(absl::Minutes(133)), "2h13m");
  EXPECT_EQ(FormatAge(absl::Hours(20)), "20h");
  EXPECT_EQ(FormatAge(absl::Hours(103)), "4d7h");
  EXPECT_EQ(FormatAge(absl::Hours(24 * 300)), "300d");
}

TEST(ParseSpan, ReadsWhatPeopleType) {
  EXPECT_EQ(*ParseSpan("90"), absl::Seconds(90));
  EXPECT_EQ(*ParseSpan("10m"), absl::Minutes(10));
  EXPECT_EQ(*ParseSpan("1h30m"), absl::Minutes(90));
  EXPECT_EQ(*ParseSpan("2d"), absl::Hours(48));
  for (const char* wrong : {"", "0", "-5s", "ten", "5 parsecs", "inf", "d"}) {
    EXPECT_FALSE(ParseSpan(wrong).ok()) << wrong;
  }
}

TEST(FormatRate, KeepsThreeDigits) {
  EXPECT_EQ(FormatRate(0), "0");
  EXPECT_EQ(FormatRate(42.4), "42");
  EXPECT_EQ(FormatRate(999.7), "1.00k");
  EXPECT_EQ(FormatRate(1423), "1.42k");
  EXPECT_EQ(FormatRate(18349), "18.3k");
  EXPECT_EQ(FormatRate(1.42e6), "1.42M");
  EXPECT_EQ(FormatRate(999.6e3), "1.00M");
  EXPECT_EQ(FormatRate(123e9), "123G");
  EXPECT_EQ(FormatPercent(1200, 5000), "24%");
  EXPECT_EQ(FormatPercent(1, 0), "0%");
}

TEST(TerminalText, KeepsCharactersWholeAndTerminalsStill) {
  // U+00E9, a euro sign, an emoji: byte by byte, and as one.
  const std::string text = "a\tb\n\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80.";
  TerminalText one;
  EXPECT_EQ(one.Add(text) + one.Finish(), text);
  TerminalText many;
  std::string shown;
  for (const char byte : text) {
    const std::string part = many.Add(std::string(1, byte));
    EXPECT_TRUE(IsValidUtf8(part));
    shown += part;
  }
  EXPECT_EQ(shown + many.Finish(), text);
  // Escapes, a C1 control in two pieces, bytes that are no text.
  TerminalText steering;
  EXPECT_EQ(steering.Add("\x1B[2J\rx\xC2"), "[2Jx");
  EXPECT_EQ(steering.Add("\x9Bz\xFF"), "z?");
  EXPECT_EQ(steering.Add("\x80\x80\x80\x80"), "????");
  EXPECT_EQ(steering.Add("\xE2\x82"), "");
  EXPECT_EQ(steering.Finish(), "??");
}

TEST(NearestName, FindsSlipsAndNothingElse) {
  const std::vector<std::string> names = {"submit", "suspend", "list", "logs", "describe"};
  EXPECT_EQ(NearestName("sumbit", names), "submit");
  EXPECT_EQ(NearestName("SUBMIT", names), "submit");
  EXPECT_EQ(NearestName("lgos", names), "logs");
  EXPECT_EQ(NearestName("desc", names), "describe");
  EXPECT_EQ(NearestName("frobnicate", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(EditDistance("ab", "ba"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("", "abc"), 3);
}

TEST(Printable, TakesOutWhatSteersATerminal) {
  EXPECT_EQ(Printable("a\x1b[31mb\x07"), "a[31mb");
  EXPECT_EQ(Printable("a\tb\nc\r"), "a b c");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m"),
            "31m");  // the C1 control sequence introducer
  EXPECT_EQ(Printable("\xE2\x80\xAE"
                      "txt.exe"),
            "txt.exe");  // right-to-left override
  EXPECT_EQ(Printable("\xff\xC3"), "??");
  EXPECT_EQ(Printable("caf\xC3\xA9 \xF0\x9F\x98\x80"), "caf\xC3\xA9 \xF0\x9F\x98\x80");
}

TEST(Utf8, IsCheckedStrictly) {
  EXPECT_TRUE(IsValidUtf8("caf\xC3\xA9"));
  EXPECT_FALSE(IsValidUtf8("\xC0\x80"));          // overlong
  EXPECT_FALSE(IsValidUtf8("\xED\xA0\x80"));      // a surrogate
  EXPECT_FALSE(IsValidUtf8("\xF4\x90\x80\x80"));  // beyond U+10FFFF
  EXPECT_FALSE(IsValidUtf8("\xE2\x82"));
}

TEST(TruncateToWidth, CountsColumnsNotBytes) {
  EXPECT_EQ(DisplayWidth("\xE6\x97\xA5\xE6\x9C\xAC"), 4);
  EXPECT_EQ(DisplayWidth("e\xCC\x81"), 1);
  EXPECT_EQ(TruncateToWidth("abcdef", 6, true), "abcdef");
  EXPECT_EQ(TruncateToWidth("abcdefg", 6, true), "abcde\xE2\x80\xA6");
  EXPECT_EQ(TruncateToWidth("abcdefg", 6, false), "abc...");
  EXPECT_EQ(TruncateToWidth("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", 4, true),
            "\xE6\x97\xA5\xE2\x80\xA6");
  EXPECT_EQ(TruncateToWidth("abcdefg", 2, false), "..");
  EXPECT_EQ(TruncateToWidth("abcdefg", 0, true), "");
}

Table Sample() {
  Table table({{"NAME"}, {"STEP", true}, {"MESSAGE"}});
  table.AddRow({std::string("quickstart"), std::string("5/100"), std::string("waits for slots")});
  table.AddRow({std::string("b\n"), std::string("100/100"), {"", Style::kGood}});
  return table;
}

TEST(OutputTable, HasNoBordersAndIsWholeWithoutATerminal) {
  EXPECT_EQ(Sample().Render(Terminal{}),
            "NAME           STEP  MESSAGE\n"
            "quickstart    5/100  waits for slots\n"
            "b           100/100\n");
}

TEST(OutputTable, IsCutOnATerminal) {
  Terminal terminal;
  terminal.width = 30;
  terminal.is_tty = true;
  const std::string text = Sample().Render(terminal);
  EXPECT_EQ(text,
            "NAME           STEP  MESSAGE\n"
            "quickstart    5/100  waits ...\n"
            "b           100/100\n");
}

TEST(OutputTable, ColoursDoNotMoveColumns) {
  Terminal terminal;
  terminal.color = true;
  Table table({{"STATE"}, {"AGE"}});
  table.AddRow({{"FAILED", Style::kBad}, std::string("3m")});
  EXPECT_EQ(table.Render(terminal, false), "\x1b[31mFAILED\x1b[0m  3m\n");
}

}  // namespace
}  // namespace lasp::client
