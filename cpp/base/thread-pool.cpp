#include "base/thread-pool.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#ifdef _WIN32
#include <process.h>
#define getpid _getpid
#else
#include <unistd.h>
#endif

namespace hw {

struct ThreadPool::State {
    std::mutex mutex;
    std::condition_variable has_work, has_ended;
    const std::function<void(int)>* work = nullptr;  // of which next to n - 1 are to be done
    int n = 0, next = 0, n_ended = 0;
    bool is_over = false;
    std::vector<std::thread> threads;
    const int process = getpid();

    explicit State(int n_threads) {
        try {
            threads.reserve(static_cast<size_t>(n_threads));
            for (int i = 1; i < n_threads; i++) {
                threads.emplace_back([this] { live(); });
            }
        } catch (const std::exception&) {
            // The system has no more: those that are there do it all.
        }
    }

    ~State() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            is_over = true;
        }
        has_work.notify_all();
        for (std::thread& thread : threads) {
            thread.join();
        }
    }

    void live() {
        std::unique_lock<std::mutex> lock(mutex);
        while (true) {
            has_work.wait(lock, [this] { return is_over || next < n; });
            if (is_over) {
                return;
            }
            take_part(&lock);
        }
    }

    void take_part(std::unique_lock<std::mutex>* lock) {
        while (next < n) {
            const int mine = next++;
            lock->unlock();
            (*work)(mine);
            lock->lock();
            if (++n_ended == n) {
                has_ended.notify_all();
            }
        }
    }

    void run(int n_pieces, const std::function<void(int)>& pieces) {
        std::unique_lock<std::mutex> lock(mutex);
        work = &pieces;
        n = n_pieces;
        next = n_ended = 0;
        has_work.notify_all();
        take_part(&lock);
        has_ended.wait(lock, [this] { return n_ended == n; });
    }

    // After fork() the threads are those of the parent, and nobody wakes or ends them here.
    bool is_of_parent() const { return process != getpid(); }
};

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads) {}

ThreadPool::~ThreadPool() {
    if (state_ != nullptr && state_->is_of_parent()) {
        static_cast<void>(state_.release());
    }
}

void ThreadPool::run(int n, const std::function<void(int)>& work) {
    if (n > 1 && n_threads_ > 1 && state_ == nullptr) {
        state_.reset(new (std::nothrow) State(n_threads_));
    }
    if (n > 1 && state_ != nullptr && !state_->is_of_parent()) {
        state_->run(n, work);
        return;
    }
    for (int i = 0; i < n; i++) {
        work(i);
    }
}

}  // namespace hw
