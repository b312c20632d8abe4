// How many threads a pass gets: those of the model, or one fewer while another process takes a core of theirs.
//
// Threads of a pass wait for each other some hundred times. Where another process takes a core of theirs, one is away
// for milliseconds at a time and all others wait, and the system may put two of them on one core: two threads take
// longer then than one would alone. A pass tells so itself, by how often its threads were taken off their cores, and by
// the CPU time that it got: where n threads got no more than n - 1 could have had, one of them only holds the others
// up. Not two fewer: where others take all cores, each thread gets its share of them. The results are the same: what is
// computed does not depend on which thread does it.
#pragma once

#include <cstdint>

#include "hogwild-parts.h"

namespace hw {

// Times a pass that is computed while it lives.
class PassClock {
  public:
    PassClock();
    // Since it was made. Where the system does not tell, no thread was ever taken off its core.
    hw_pass_time time() const;

  private:
    hw_pass_time start_;
};

class ThreadCount {
  public:
    explicit ThreadCount(int32_t all) : all_(all) {}
    int32_t n() const { return n_passes_ > 0 ? all_ - 1 : all_; }
    // What a pass of n() threads took.
    void note(const hw_pass_time& time);

  private:
    int32_t all_;
    int32_t n_passes_ = 0;  // that get one fewer
};

}  // namespace hw
