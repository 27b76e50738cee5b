#include "tests/kernels/ranks.h"

#include <cstddef>

#include "tests/kernels/random_values.h"

namespace lasp::kernels {

std::vector<double> Slice(const std::vector<double>& values, const reference::LinearAttention& x,
                          int64_t width, int64_t start, int64_t tokens) {
  std::vector<double> out;
  const int64_t row = x.heads * width;
  for (int64_t batch = 0; batch < x.batch; ++batch) {
    const auto first = values.begin() + (batch * x.tokens + start) * row;
    out.insert(out.end(), first, first + tokens * row);
  }
  return out;
}

namespace {

template <typename T>
class Rank {
 public:
  Rank(const reference::LinearAttention& x, const std::vector<double>& d_o, int64_t start,
       int64_t tokens, const std::vector<int64_t>& document_starts)
      : q_(Converted<T>(Slice(x.q, x, x.key_size, start, tokens))),
        k_(Converted<T>(Slice(x.k, x, x.key_size, start, tokens))),
        v_(Converted<T>(Slice(x.v, x, x.value_size, start, tokens))),
        d_o_(Converted<T>(Slice(d_o, x, x.value_size, start, tokens))),
        shape_{.batch = x.batch,
               .tokens = tokens,
               .heads = x.heads,
               .key_size = x.key_size,
               .value_size = x.value_size,
               .slopes = x.slopes.data(),
               .theta = x.theta.empty() ? nullptr : x.theta.data()},
        // Poisoned: outputs must be written whole.
        state_(Size(StateElements(shape_)), T{77}),
        state_gradient_(state_),
        block_states_(Size(BlockStateElements(shape_)), T{77}),
        block_state_gradients_(block_states_) {
    result_.start = start;
    result_.tokens = tokens;
    result_.output.assign(v_.size(), T{77});
    result_.q.assign(q_.size(), T{77});
    result_.k.assign(k_.size(), T{77});
    result_.v.assign(v_.size(), T{77});
    theta_.resize(x.theta.size());
    if (!document_starts.empty()) {
      Mark(x, document_starts);
    }
  }

  // Returns the state that goes to the next rank.
  std::vector<T> Forward(const std::vector<T>* state_in) {
    cpu::LocalState<T>({shape_, Key(k_), Value(v_), state_.data(), block_states_.data()});
    cpu::IntraOutput<T>(
        {shape_, Key(q_), Key(k_), Value(v_), block_states_.data(), Value(result_.output)});
    if (state_in != nullptr) {
      state_in_ = *state_in;
      cpu::AddInterOutput<T>({shape_, Key(q_), state_in_.data(), Value(result_.output)});
    }
    std::vector<T> out(state_.size(), T{77});
    cpu::StateHop<T>({shape_, StateIn(), state_.data(), out.data()});
    return out;
  }

  // Returns the gradient that goes to the previous rank.
  std::vector<T> Backward(const std::vector<T>* gradient_in) {
    T* const theta = theta_.empty() ? nullptr : theta_.data();
    cpu::LocalStateGradient<T>(
        {shape_, Key(q_), Value(d_o_), state_gradient_.data(), block_state_gradients_.data()});
    cpu::IntraGradients<T>({shape_, Key(q_), Key(k_), Value(v_), Value(d_o_), block_states_.data(),
                            block_state_gradients_.data(), Key(result_.q), Key(result_.k),
                            Value(result_.v), theta});
    if (StateIn() != nullptr) {
      cpu::AddInterQueryGradients<T>(
          {shape_, Key(q_), Value(d_o_), StateIn(), Key(result_.q), theta});
    }
    if (gradient_in != nullptr) {
      cpu::AddInterKeyValueGradients<T>({shape_, Key(k_), Value(v_), gradient_in->data(),
                                         Key(result_.k), Value(result_.v), StateIn(), theta});
    }
    // In place, as a communicator's buffer would be used.
    std::vector<T> out = gradient_in == nullptr ? state_gradient_ : *gradient_in;
    cpu::StateGradientHop<T>({shape_, gradient_in == nullptr ? nullptr : out.data(),
                              state_gradient_.data(), out.data()});
    return out;
  }

  const RankResult<T>& result() const { return result_; }

  const std::vector<T>& theta() const { return theta_; }

 private:
  void Mark(const reference::LinearAttention& x, const std::vector<int64_t>& document_starts) {
    marks_.resize(Size(shape_.batch * BlockCount(shape_)));
    for (const int64_t at : document_starts) {
      const int64_t token = at % x.tokens - result_.start;
      if (token >= 0 && token < shape_.tokens) {
        const int64_t block = at / x.tokens * BlockCount(shape_) + token / kLinearAttentionBlock;
        marks_[Size(block)] |= uint64_t{1} << (token % kLinearAttentionBlock);
      }
    }
    shape_.document_marks = marks_.data();
  }

  static size_t Size(int64_t elements) { return static_cast<size_t>(elements); }

  const T* StateIn() const { return state_in_.empty() ? nullptr : state_in_.data(); }

  HeadsView<const T> Key(const std::vector<T>& x) const { return View(x.data(), shape_.key_size); }

  HeadsView<T> Key(std::vector<T>& x) const { return View(x.data(), shape_.key_size); }

  HeadsView<const T> Value(const std::vector<T>& x) const {
    return View(x.data(), shape_.value_size);
  }

  HeadsView<T> Value(std::vector<T>& x) const { return View(x.data(), shape_.value_size); }

  template <typename U>
  HeadsView<U> View(U* data, int64_t width) const {
    return {data, shape_.tokens * shape_.heads * width, shape_.heads * width, width};
  }

  std::vector<T> q_, k_, v_, d_o_;
  LinearAttentionShape shape_;
  std::vector<uint64_t> marks_;
  std::vector<T> state_in_;
  std::vector<T> state_, state_gradient_;
  std::vector<T> block_states_, block_state_gradients_;
  std::vector<T> theta_;
  RankResult<T> result_;
};

}  // namespace

template <typename T>
GroupResult<T> RunRanks(const reference::LinearAttention& x, const std::vector<double>& d_o,
                        const std::vector<int64_t>& lengths,
                        const std::vector<int64_t>& document_starts) {
  std::vector<Rank<T>> ranks;
  ranks.reserve(lengths.size());
  int64_t start = 0;
  for (const int64_t tokens : lengths) {
    ranks.emplace_back(x, d_o, start, tokens, document_starts);
    start += tokens;
  }
  std::vector<T> carried;
  for (size_t r = 0; r < ranks.size(); ++r) {
    carried = ranks[r].Forward(r == 0 ? nullptr : &carried);
  }
  for (size_t r = ranks.size(); r-- > 0;) {
    carried = ranks[r].Backward(r + 1 == ranks.size() ? nullptr : &carried);
  }
  GroupResult<T> group;
  group.theta.resize(x.theta.size());
  for (const Rank<T>& rank : ranks) {
    group.ranks.push_back(rank.result());
    for (size_t i = 0; i < group.theta.size(); ++i) {
      group.theta[i] += rank.theta()[i];
    }
  }
  return group;
}

template GroupResult<float> RunRanks<float>(const reference::LinearAttention&,
                                            const std::vector<double>&, const std::vector<int64_t>&,
                                            const std::vector<int64_t>&);
template GroupResult<double> RunRanks<double>(const reference::LinearAttention&,
                                              const std::vector<double>&,
                                              const std::vector<int64_t>&,
                                              const std::vector<int64_t>&);

}  // namespace lasp::kernels
