#include "engine/thread-count.h"

#include <chrono>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/resource.h>
#endif

namespace hw {

namespace {

// A pass that tries all threads again may take some three times as long as the others.
constexpr int32_t passes_between_tries = 16;

// Threads that wait spin for some microseconds before they sleep, which is CPU time too.
constexpr double spinning = 1.05;

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

hw_pass_time now() {
    hw_pass_time time = {seconds_now(), 0.0, 0};
#if defined(__unix__) || defined(__APPLE__)
    rusage usage = {};
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        const auto seconds = [](const timeval& part) {
            return static_cast<double>(part.tv_sec) + 1e-6 * static_cast<double>(part.tv_usec);
        };
        time.cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        time.n_taken = usage.ru_nivcsw;
    }
#endif
    return time;
}

}  // namespace

PassClock::PassClock() : start_(now()) {}

hw_pass_time PassClock::time() const {
    const hw_pass_time end = now();
    return {end.wall - start_.wall, end.cpu - start_.cpu, end.n_taken - start_.n_taken};
}

void ThreadCount::note(const hw_pass_time& time) {
    if (n_passes_ > 0) {
        n_passes_--;
    } else if (all_ > 1 && time.n_taken > all_ && time.cpu < spinning * (all_ - 1) * time.wall) {
        n_passes_ = passes_between_tries;
    }
}

}  // namespace hw
