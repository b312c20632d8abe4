// llama.cpp and ggml have one log callback a process. Ours sits in front of the one found: while a call of this library
// runs on a thread, its lines go to the hook of hw_log_set and its errors are kept for the error text; all other lines
// go where they went before.
//
// A hook runs in the middle of a call, with its locks held and its objects half changed. So calls from inside it are
// refused (api/guard.h), and what it frees is freed when the call that it runs in has ended.
#pragma once

#include <functional>
#include <string>

namespace hw {

class LogScope {
  public:
    LogScope();
    ~LogScope();
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;
    // The error lines logged on this thread since the scope began, joined; empty if none.
    std::string errors() const;

  private:
    std::string* outer_;
    std::string errors_;
};

// Whether this thread runs a log hook.
bool is_in_hook();
// Calls it at the end of the outermost scope of this thread.
void defer(std::function<void()> call);

}  // namespace hw
