#include <costate/sde/trace.h>
#include <costate/sde/words.h>

#include <costate/tensor/random.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 3> kNames = {"exact", "hutchinson", "hutch_pp"};
using Product = std::function<Tensor(const Tensor&)>;
using Values = std::vector<double>;

// Vectors of all rows in double precision, (rows, d), beside the tensors that products take and give.
struct Rows {
  const Tensor& like;
  std::int64_t count, dim;

  explicit Rows(const Tensor& x) : like(x), count(x.extent(0)), dim(x.numel() / std::max<std::int64_t>(x.extent(0), 1)) {}

  Tensor tensor(const Values& v) const {
    if (like.dtype() == DType::f64) return Tensor::from(v, like.shape()).to(like.device());
    return Tensor::from(std::vector<float>(v.begin(), v.end()), like.shape()).to(like.device());
  }
  Values product(const Product& f, const Values& a) const {
    const Tensor y = f(tensor(a));
    require(y.shape() == like.shape(), "trace: the product maps shape ", like.shape(), " to ", y.shape());
    return y.to(Device::cpu).to_doubles();
  }

  // sum += a . b, row by row.
  void add_dots(const Values& a, const Values& b, double weight, Values& sum) const {
    for (std::int64_t i = 0; i < count; ++i) {
      double dot = 0;
      for (std::int64_t j = i * dim; j < (i + 1) * dim; ++j) dot += a[j] * b[j];
      sum[i] += weight * dot;
    }
  }
  // v -= Q (Q^T v), row by row, by one column after another.
  void project_out(const std::vector<Values>& q, Values& v) const {
    for (const Values& column : q)
      for (std::int64_t i = 0; i < count; ++i) {
        double dot = 0;
        for (std::int64_t j = i * dim; j < (i + 1) * dim; ++j) dot += column[j] * v[j];
        for (std::int64_t j = i * dim; j < (i + 1) * dim; ++j) v[j] -= dot * column[j];
      }
  }
  Values norms(const Values& v) const {
    Values square(count, 0.0);
    add_dots(v, v, 1, square);
    for (double& s : square) s = std::sqrt(s);
    return square;
  }
};

Values probe(const Rows& rows, Probe kind, const NoiseKey& key, std::uint32_t number) {
  const Tensor g = Tensor::empty(rows.like.shape(), rows.like.dtype());
  if (kind == Probe::gaussian) {
    random_normal(g, key.seed, Stream::probe, key.first_sample, number);
    return g.to_doubles();
  }
  random_uniform(g, key.seed, Stream::probe, key.first_sample, number);
  Values v = g.to_doubles();
  for (double& u : v) u = u < 0.5 ? -1 : 1;  // u is never 1/2: odd multiples of 2^-24
  return v;
}

// An orthonormal basis of the columns, row by row: Gram and Schmidt's method, each column twice ("twice is enough":
// Giraud, Langou, Rozloznik 2005). A column within rounding of those before it becomes zero: it adds nothing to either
// part of the estimate, whereas dividing by its norm would leave the basis far from orthogonal.
std::vector<Values> orthonormal(const Rows& rows, std::vector<Values> columns) {
  std::vector<Values> q;
  for (Values& v : columns) {
    const Values before = rows.norms(v);
    rows.project_out(q, v);
    rows.project_out(q, v);
    const Values after = rows.norms(v);
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const double scale = after[i] > 1e-12 * before[i] ? 1 / after[i] : 0;
      for (std::int64_t j = i * rows.dim; j < (i + 1) * rows.dim; ++j) v[j] *= scale;
    }
    rows.project_out(q, v);  // dividing a small remainder enlarges what is left of the others
    q.push_back(std::move(v));
  }
  return q;
}

std::int64_t sketch_columns(const TraceOptions& o, std::int64_t dim) { return std::min<std::int64_t>(o.probes / 3, dim); }

Values exact(const Rows& rows, const Product& product) {
  Values sum(rows.count, 0.0), unit(rows.like.numel(), 0.0);
  for (std::int64_t j = 0; j < rows.dim; ++j) {
    for (std::int64_t i = 0; i < rows.count; ++i) unit[i * rows.dim + j] = 1;
    rows.add_dots(unit, rows.product(product, unit), 1, sum);
    for (std::int64_t i = 0; i < rows.count; ++i) unit[i * rows.dim + j] = 0;
  }
  return sum;
}

}  // namespace

std::string_view name(TraceMethod method) { return kNames[static_cast<std::size_t>(method)]; }
TraceMethod trace_method(std::string_view word) { return static_cast<TraceMethod>(word_index(word, kNames, "a trace method")); }

std::int64_t trace_products(const TraceOptions& o, std::int64_t dim) {
  if (o.method == TraceMethod::exact) return dim;
  const int least = o.method == TraceMethod::hutch_pp ? 3 : 1;
  require(o.probes >= least, "trace: ", o.probes, " probes; ", name(o.method), " needs at least ", least);
  if (o.method == TraceMethod::hutchinson) return o.probes;
  const std::int64_t s = sketch_columns(o, dim);
  return s == dim ? 2 * s : o.probes;  // a basis of the whole space leaves no complement to sample
}

std::vector<double> trace(const Product& product, const Tensor& like, const TraceOptions& o, const NoiseKey& key,
                          std::uint32_t first_probe) {
  require(like.defined() && like.rank() >= 1, "trace: the vectors have no axis of rows");
  const Rows rows(like);
  const std::int64_t products = trace_products(o, rows.dim);
  if (like.is_meta()) {
    for (std::int64_t j = 0; j < products; ++j) product(Tensor::empty_like(like));
    return Values(rows.count, 0.0);
  }
  if (o.method == TraceMethod::exact) return exact(rows, product);

  Values sum(rows.count, 0.0);
  std::uint32_t number = first_probe;
  std::vector<Values> q;
  if (o.method == TraceMethod::hutch_pp) {
    for (std::int64_t j = 0; j < sketch_columns(o, rows.dim); ++j)
      q.push_back(rows.product(product, probe(rows, o.probe, key, number++)));
    q = orthonormal(rows, std::move(q));
    for (const Values& column : q) rows.add_dots(column, rows.product(product, column), 1, sum);
  }
  const auto left = products - 2 * static_cast<std::int64_t>(q.size());
  for (std::int64_t j = 0; j < left; ++j) {
    Values g = probe(rows, o.probe, key, number++);
    rows.project_out(q, g);
    rows.add_dots(g, rows.product(product, g), 1.0 / static_cast<double>(left), sum);
  }
  return sum;
}

}  // namespace costate::sde
