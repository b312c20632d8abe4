#include "base/log.h"

#include <mutex>
#include <utility>
#include <vector>

#include "hogwild.h"
#include "llama.h"

namespace hw {

namespace {

thread_local std::string* errors_of_this_thread = nullptr;
thread_local bool is_hook_running = false;
thread_local std::vector<std::function<void()>> deferred;

struct Hook {
    std::mutex mutex;
    hw_log_callback callback = nullptr;
    void* user_data = nullptr;
    ggml_log_callback previous = nullptr;
    void* previous_data = nullptr;
};

Hook& hook() {
    static Hook instance;
    return instance;
}

void on_line(ggml_log_level level, const char* text, void*) {
    // Copied, so that a hook may itself call hw_log_set.
    std::unique_lock<std::mutex> lock(hook().mutex);
    const hw_log_callback callback = hook().callback;
    void* const user_data = hook().user_data;
    const ggml_log_callback previous = hook().previous;
    void* const previous_data = hook().previous_data;
    lock.unlock();
    if (errors_of_this_thread == nullptr) {
        if (previous != nullptr) {
            previous(level, text, previous_data);
        }
        return;
    }
    if (level == GGML_LOG_LEVEL_ERROR && errors_of_this_thread->size() < 2000) {
        *errors_of_this_thread += text;
    }
    if (callback != nullptr && !is_hook_running) {
        is_hook_running = true;
        callback(static_cast<int32_t>(level), text, user_data);
        is_hook_running = false;
    }
}

// Another user of llama.cpp may have set its callback after us: look each time. llama.cpp's own note of it has no lock.
void install() {
    std::lock_guard<std::mutex> lock(hook().mutex);
    ggml_log_callback current = nullptr;
    void* data = nullptr;
    llama_log_get(&current, &data);
    if (current != on_line) {
        hook().previous = current;
        hook().previous_data = data;
        llama_log_set(on_line, nullptr);
    }
}

}  // namespace

LogScope::LogScope() : outer_(errors_of_this_thread) {
    install();
    errors_of_this_thread = &errors_;
}

// What is freed has something to say too, and its hook may free more.
LogScope::~LogScope() {
    while (outer_ == nullptr && !deferred.empty()) {
        std::vector<std::function<void()>> calls;
        calls.swap(deferred);
        for (const std::function<void()>& call : calls) {
            call();
        }
    }
    errors_of_this_thread = outer_;
}

bool is_in_hook() { return is_hook_running; }

void defer(std::function<void()> call) { deferred.push_back(std::move(call)); }

std::string LogScope::errors() const {
    std::string text = errors_;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.pop_back();
    }
    return text;
}

}  // namespace hw

extern "C" void hw_log_set(hw_log_callback callback, void* user_data) {
    std::lock_guard<std::mutex> lock(hw::hook().mutex);
    hw::hook().callback = callback;
    hw::hook().user_data = user_data;
}
