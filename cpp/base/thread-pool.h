// A few threads for work that comes in short pieces. They are started when there is first something to do, and sleep
// while there is nothing.
#pragma once

#include <functional>
#include <memory>

namespace hw {

class ThreadPool {
  public:
    // n_threads: with that of the caller. Fewer where the system has no more.
    explicit ThreadPool(int n_threads);
    ~ThreadPool();
    // Calls work(0) to work(n - 1), each once, on any of the threads, and returns when all have ended. work must not
    // throw. One caller at a time.
    void run(int n, const std::function<void(int)>& work);

  private:
    struct State;
    int n_threads_;
    std::unique_ptr<State> state_;  // NULL: no threads yet
};

}  // namespace hw
