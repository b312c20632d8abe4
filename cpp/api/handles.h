// What stands behind the pointers of the C API.
#pragma once

#include "api/guard.h"
#include "engine/cache.h"
#include "hogwild.h"
#include "model/model.h"
#include "model/sampler.h"

struct hw_model {
    hw::ModelPtr model;
};
struct hw_cache {
    hw::Cache cache;
};

namespace hw {

// These throw HW_ERROR_ARGUMENT for NULL.
inline const Model& of(const hw_model* model) { return *not_null(model, "model").model; }
inline Cache& of(hw_cache* cache) { return not_null(cache, "cache").cache; }
inline Sampler& of(hw_sampler* sampler) { return not_null(sampler, "sampler").sampler; }

}  // namespace hw
