// The C boundary of trials.
#include "api/guard.h"
#include "base/error.h"
#include "hogwild-trial.h"
#include "model/trial.h"

extern "C" hw_status hw_try_model(const char* path, const char* const* loras, int32_t n_loras, char* err,
                                  size_t err_size) {
    return hw::guard(err, err_size, [&] {
        if (path == nullptr || n_loras < 0 || (loras == nullptr && n_loras > 0)) {
            hw::fail(HW_ERROR_ARGUMENT, "a trial needs a path, and adapters where there are some");
        }
        std::vector<std::string> paths;
        for (int32_t i = 0; i < n_loras; i++) {
            paths.emplace_back(&hw::not_null(loras[i], "an adapter's path"));
        }
        hw::try_model(path, paths);
    });
}
