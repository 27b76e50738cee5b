#include "worker/checkpoint/row_staging.h"

#include <algorithm>
#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

RowStaging::RowStaging(std::vector<ColumnCut> cuts, const TrainingTensors& tensors,
                       Backend* backend, const Ranks& ranks, Arena& arena)
    : cuts_(std::move(cuts)),
      backend_(*backend),
      group_(*ranks.group),
      replicas_(*ranks.replicas),
      owned_(ranks.owned) {
  int64_t count = 0;
  int64_t largest = 0;
  for (const ColumnCut& cut : cuts_) {
    const int64_t rows = cut.rows / group_.size();
    shares_.push_back({.begin = cut.whole + group_.rank() * rows * cut.stride,
                       .count = rows * cut.stride,
                       .local = count});
    count += rows * cut.stride;
    largest = std::max(largest, rows * cut.stride);
  }
  saved_ = PartOf(shares_, replicas_.size(), replicas_.rank());
  for (size_t part = 0; part < staged_.size(); ++part) {
    staged_[part] = arena.Take(MemoryUse::kWorkspace, tensors[part].dtype, 1, count);
  }
  const DType widest = tensors[0].dtype;
  received_ = arena.Take(MemoryUse::kWorkspace, widest, 1, largest);
  if (!owned_.has_value()) {
    return;
  }
  // As many elements: all of fewer columns.
  gathered_ = arena.Take(MemoryUse::kWorkspace, widest, 1, largest);
  if (tensors[1].dtype != widest) {
    narrowed_ = arena.Take(MemoryUse::kWorkspace, tensors[1].dtype, 1, largest);
  }
}

absl::Status RowStaging::Fill(const TrainingTensors& tensors) {
  for (size_t part = 0; part < tensors.size(); ++part) {
    for (size_t i = 0; i < cuts_.size(); ++i) {
      const ColumnCut& cut = cuts_[i];
      const TensorShare& share = shares_[i];
      LASP_ASSIGN_OR_RETURN(const Tensor columns, ColumnsOf(cut, tensors[part]));
      LASP_RETURN_IF_ERROR(FillOne(columns, staged_[part]
                                                .Columns(share.local, share.count)
                                                .Reshape(cut.rows / group_.size(), cut.stride)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> RowStaging::ColumnsOf(const ColumnCut& cut, Tensor tensor) {
  const int64_t count = cut.rows * cut.columns;
  if (!owned_.has_value()) {
    return tensor.Columns(cut.own, count).Reshape(cut.rows, cut.columns);
  }
  // A sum of one number and zeros is that number.
  const Tensor all = gathered_.Columns(0, count).Reshape(1, count);
  backend_.Fill(0, all);
  for (const TensorShare& share : *owned_) {
    const int64_t begin = std::max(cut.own, share.begin);
    const int64_t size = std::min(cut.own + count, share.begin + share.count) - begin;
    if (size > 0) {
      backend_.Convert(tensor.Columns(share.local + begin - share.begin, size).Reshape(1, size),
                       all.Columns(begin - cut.own, size).Reshape(1, size));
    }
  }
  LASP_RETURN_IF_ERROR(replicas_.AllReduceSum(all).Wait());
  if (tensor.dtype == all.dtype) {
    return all.Reshape(cut.rows, cut.columns);
  }
  const Tensor narrowed = narrowed_.Columns(0, count).Reshape(1, count);
  backend_.Convert(all, narrowed);
  return narrowed.Reshape(cut.rows, cut.columns);
}

absl::Status RowStaging::FillOne(Tensor columns, Tensor rows) {
  const int64_t block = rows.rows * columns.columns;
  // A rank's columns of these rows.
  const auto received = [&](int rank) {
    const Tensor room{received_.data, columns.dtype, 1, received_.columns, received_.columns};
    return room.Columns(rank * block, block).Reshape(rows.rows, columns.columns);
  };
  std::vector<PeerTransfer> transfers;
  for (int turn = 1; turn < group_.size(); ++turn) {
    const int peer = (group_.rank() + turn) % group_.size();
    transfers.push_back({.peer = peer,
                         .send = columns.Rows(peer * rows.rows, rows.rows),
                         .there = received(group_.rank()),
                         .receive = received(peer)});
  }
  LASP_RETURN_IF_ERROR(group_.Exchange(transfers).Wait());
  for (int rank = 0; rank < group_.size(); ++rank) {
    backend_.Copy(
        rank == group_.rank() ? columns.Rows(rank * rows.rows, rows.rows) : received(rank),
        rows.Columns(rank * columns.columns, columns.columns));
  }
  return absl::OkStatus();
}

std::vector<TensorShare> Without(const std::vector<ColumnCut>& cuts,
                                 const std::vector<TensorShare>& ranges) {
  std::vector<TensorShare> left;
  for (const TensorShare& range : ranges) {
    const int64_t end = range.begin + range.count;
    int64_t from = range.begin;
    const auto keep = [&](int64_t to) {
      if (from < to) {
        left.push_back(
            {.begin = from, .count = to - from, .local = range.local + from - range.begin});
      }
    };
    for (const ColumnCut& cut : cuts) {
      const int64_t cut_end = cut.own + cut.rows * cut.columns;
      if (cut.own < end && cut_end > from) {
        keep(cut.own);
        from = cut_end;
      }
    }
    keep(end);
  }
  return left;
}

}  // namespace lasp::worker
