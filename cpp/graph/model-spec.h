// Reading the ModelSpec off a graph, and refusing what none of our attentions could do.
#pragma once

#include "graph/source-graph.h"

namespace hw {

// Throws HW_ERROR_UNSUPPORTED.
ModelSpec model_spec_of(const SourceGraph& source, const Model& model);

}  // namespace hw
