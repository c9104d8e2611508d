// The metrics of a run: one row a logged step, as JSON lines and as a table, without wall times: equal runs
// leave equal files. On request also as files that TensorBoard shows, with pictures and distributions.
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "run/tensorboard.h"

namespace costate::cli {

// The shortest text that reads back as the same number: "nan", "inf" for those.
std::string number_text(double v);
// A few digits, for people.
std::string short_number(double v);

using Values = std::vector<std::pair<std::string_view, double>>;

class Metrics {
 public:
  // `folder` "" keeps nothing. Rows of earlier stages are kept, those of `dropped_stages` forgotten, as are those of the stages
  // of `kept_until` beyond that step. `tensorboard`: also folder/tensorboard/STAGE.
  explicit Metrics(std::string folder, const std::vector<std::string>& dropped_stages = {}, bool tensorboard = false,
                   const std::map<std::string, std::int64_t>& kept_until = {});

  // A name that the table has no column for becomes its last column; numbers that are not finite become null in JSON.
  void row(std::string_view stage, std::int64_t step, const Values& values, double seconds);
  // For TensorBoard only.
  void picture(std::string_view stage, std::int64_t step, const std::string& name, const Raster& picture);
  void distribution(std::string_view stage, std::int64_t step, const std::string& name, std::span<const double> values);
  // Writes all files if `force` or if a few seconds have passed since the last time.
  void flush(bool force);

 private:
  tensorboard::Writer& events(std::string_view stage);
  std::string folder_;
  bool tensorboard_ = false;
  std::map<std::string, std::int64_t> kept_until_;
  std::map<std::string, tensorboard::Writer, std::less<>> events_;  // by stage
  std::string jsonl_, csv_, timing_;
  std::vector<std::string> columns_;  // of the table, behind stage and step
  double last_flush_ = 0;
};

}  // namespace costate::cli
