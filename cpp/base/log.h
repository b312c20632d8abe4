// llama.cpp and ggml have one log callback a process. Ours sits in front of the one found: while a call of this library
// runs on a thread, its lines go to the hook of hw_log_set and its errors are kept for the error text; all other lines
// go where they went before.
#pragma once

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

}  // namespace hw
