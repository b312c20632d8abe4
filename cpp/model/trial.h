// A model file is tried: all that llama.cpp does with it but reading weights and computing.
#pragma once

#include <string>
#include <vector>

namespace hw {

// Frees nothing. Throws HW_ERROR_MODEL; llama.cpp may end the process.
void try_model(const char* path, const std::vector<std::string>& loras);

}  // namespace hw
