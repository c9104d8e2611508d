// The page about a run: what it holds, that nothing in it comes from elsewhere, and that unfinished, foreign and damaged
// directories are shown or refused in words.
#include <gtest/gtest.h>

#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "markup_check.h"
#include "program.h"
#include "run/metrics.h"
#include "run_report/report.h"

namespace costate::cli::testing {
namespace {

std::size_t count(const std::string& s, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = s.find(what); at != s.npos; at = s.find(what, at + what.size())) ++n;
  return n;
}

std::string base64_decoded(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned word = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    word = word << 6 | static_cast<unsigned>(digits.find(c)), bits += 6;
    if (bits >= 8) bits -= 8, out.push_back(static_cast<char>(word >> bits & 255));
  }
  return out;
}

std::string title(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

// The pictures inside a page, in its order.
std::vector<std::string> pictures(const std::string& page) {
  std::vector<std::string> out;
  const std::string head = "src=\"data:image/png;base64,";
  for (std::size_t at = page.find(head); at != page.npos; at = page.find(head, at + 1)) {
    const std::size_t begin = at + head.size();
    out.push_back(base64_decoded(page.substr(begin, page.find('"', begin) - begin)));
  }
  return out;
}

void expect_page(const std::string& page) {
  EXPECT_EQ(fault_in_markup(page), "");
  // No request of any kind: whatever is loaded is a data URI.
  for (const char* word : {"<script", "<link", "<iframe", "@import", "url(", "https:", "srcset"}) EXPECT_EQ(count(page, word), 0u) << word;
  EXPECT_EQ(count(page, "src="), count(page, "src=\"data:image/png;base64,"));
  EXPECT_EQ(count(page, "href="), count(page, "href=\"#section-"));
  EXPECT_EQ(count(page, "http:"), count(page, "http://www.w3.org/"));  // name spaces
  // Fits 400 pixels: what is wider scrolls in its own box, and pictures shrink.
  EXPECT_EQ(count(page, "<table"), count(page, "<div class=\"scroll\"><table"));
  EXPECT_NE(page.find("img { display: block; max-width: 100%;"), page.npos);
  EXPECT_NE(page.find("name=\"viewport\" content=\"width=device-width"), page.npos);
}

TEST(RunReport, HoldsCurvesPicturesResultsCostsAndSettings) {
  const Folder folder;
  folder.file("config.json", tiny_digits);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--quiet", "--out", "run"}).code, 0);
  const Result r = costate(folder, {"report", "run"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out, "written to run/report.html\n");
  const std::string page = contents(folder / "run/report.html");
  expect_page(page);
  EXPECT_LT(page.size(), 5u << 20);
  for (const char* heading : {"Evaluation", "Samples", "Curves", "Time and memory", "Configuration"})
    EXPECT_EQ(count(page, std::string("<h2>") + heading + "</h2>"), 1u) << heading;
  // A plot, or a line where there is one number, for every column of every stage.
  std::map<std::string, int> columns;  // "stage: name", with the rows that have it
  std::istringstream lines(contents(folder / "run/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line);
    for (const auto& [name, v] : row.items())
      if (name != "stage" && name != "step") ++columns[row["stage"].get<std::string>() + ": " + name];
  }
  EXPECT_GE(columns.size(), 10u);
  for (const auto& [column, rows] : columns)
    EXPECT_GT(count(page, rows > 1 ? ">" + column + "<" : "<td>" + column.substr(column.find(": ") + 2) + "</td>"), 0u) << column;
  // Every number of the evaluation beside the samples.
  const Json evaluation = Json::parse(contents(folder / "run/evaluation.json"));
  EXPECT_EQ(count(page, "<td>count</td><td>" + evaluation["count"].dump() + "</td>"), 1u);
  for (const auto& [name, v] : evaluation["importance"].items())
    EXPECT_EQ(count(page, "<td>importance, " + title(name) + "</td><td>" +
                              short_number((v.is_object() ? v["value"] : v).get<double>())),
              1u)
        << name;
  // The pictures of samples/, to the byte.
  std::vector<std::string> files;
  for (const char* name : {"base_ode", "base_sde", "data", "tuned_ode", "tuned_sde"})
    files.push_back(contents(folder / (std::string("run/samples/") + name + ".png")));
  EXPECT_EQ(pictures(page), files);
  // Predicted and measured peaks, which are equal.
  const Json record = Json::parse(contents(folder / "run/run.json"));
  for (const auto& [name, stage] : record["stages"].items())
    EXPECT_EQ(count(page, "<td class=\"number\">" + stage["planned_peak"]["bytes"].dump() + "</td><td class=\"number\">" +
                              stage["peak"]["bytes"].dump() + "</td><td class=\"number\">0</td>"),
              1u)
        << name;
  EXPECT_EQ(count(page, "<td>finetune.loss_clip</td><td class=\"number\">") + count(page, "<td>finetune.loss_clip</td><td>3.0</td>"), 1u);
  EXPECT_EQ(count(page, "<td>path.family</td>"), 0u);  // as by default
  EXPECT_GT(count(page, "&quot;family&quot;: &quot;linear&quot;"), 0u);
  // The same run, the same page; elsewhere on request; gone when a stage is made again.
  ASSERT_EQ(costate(folder, {"report", "run", "--out", "elsewhere.html"}).code, 0);
  EXPECT_EQ(contents(folder / "elsewhere.html"), page);
  ASSERT_EQ(costate(folder, {"sample", "config.json", "--quiet", "--out", "run", "--overwrite"}).code, 0);
  EXPECT_FALSE(fs::exists(folder / "run/report.html"));
}

TEST(RunReport, ShowsWhatIsThere) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  ASSERT_EQ(costate(folder, {"pretrain", "config.json", "--quiet", "--out", "run"}).code, 0);
  ASSERT_EQ(costate(folder, {"report", "run"}).code, 0);
  const std::string page = contents(folder / "run/report.html");
  expect_page(page);
  EXPECT_EQ(count(page, "<h2>Evaluation</h2>") + count(page, "<h2>Samples</h2>"), 0u);
  EXPECT_GT(count(page, ">pretrain: loss<"), 0u);
}

TEST(RunReport, RefusesInWords) {
  const Folder folder;
  const auto refused = [&](const std::string& directory, int code, const std::string& words) {
    const Result r = costate(folder, {"report", directory});
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_NE(r.err.find(words), std::string::npos) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_FALSE(fs::exists(folder / (directory + "/report.html")));
  };
  refused("nothing", 2, "'nothing' is not a directory");
  const auto put = [&](const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(folder / name).parent_path());
    folder.file(name, text);
  };
  put("empty/x", "");
  refused("empty", 2, "it has no config.resolved.json");
  put("study/config.resolved.json", "{}"), put("study/study.json", "[]");
  refused("study", 2, "holds a study");
  put("run/config.resolved.json", "[]");
  refused("run", 3, "config.resolved.json' holds [] (a list), expected an object");
  put("run/config.resolved.json", "{}"), put("run/metrics.jsonl", "{\"stage\":\"a\",\"step\":1,\"loss\":2}\n{\"stage\":1}\n");
  refused("run", 3, "metrics.jsonl', line 2: found");
  put("run/metrics.jsonl", "{\"stage\":\"a\",\"step\":1,\"loss\":\"x\"}\n");
  refused("run", 3, "line 1: loss is \"x\" (text), expected a number or null");
  put("run/metrics.jsonl", ""), put("run/run.json", "{\"stages\":{\"finetune\":{}}}");
  refused("run", 3, "is not what a run writes");
  put("run/run.json", "{}"), put("run/samples/x.png", "\x89PNG");
  refused("run", 3, "samples/x.png' does not begin with the eight bytes of a PNG file");
}

TEST(RunReport, LongCurvesAreMeans) {
  std::string text;
  for (int i = 1; i <= 2500; ++i)
    text += "{\"stage\":\"finetune\",\"step\":" + std::to_string(i) + ",\"a\":" + std::to_string(i % 3) + ",\"b\":" +
            (i == 7 ? "null" : std::to_string(std::exp(i / 200.0))) + "}\n";
  const std::vector<MetricsRow> rows = read_metrics(text, "the metrics");
  ASSERT_EQ(rows.size(), 2500u);
  EXPECT_TRUE(std::isnan(rows[6].values[1].second));
  const report::Section section = curves_section(rows);
  ASSERT_EQ(section.blocks.size(), 2u);
  const auto& a = std::get<report::Figure>(section.blocks[0]);
  ASSERT_EQ(a.plot.series[0].xs.size(), 834u);  // of three rows each, the last of one
  EXPECT_EQ(a.plot.series[0].xs[1], 5);
  EXPECT_EQ(a.plot.series[0].ys[1], 1);
  EXPECT_EQ(a.plot.series[0].xs.back(), 2500);
  EXPECT_EQ(a.caption, "2500 rows of metrics.csv, means over 3 each.");
  EXPECT_FALSE(a.plot.log_y);
  EXPECT_TRUE(std::get<report::Figure>(section.blocks[1]).plot.log_y);
}

}  // namespace
}  // namespace costate::cli::testing
