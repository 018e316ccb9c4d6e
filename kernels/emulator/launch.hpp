// Kernels by name, and launches of grids.
#pragma once

#include <string>

#include "block.hpp"

namespace emu {

// Returns the kernel with this name, or null.
const Kernel* find_kernel(const std::string& name);

// Runs all blocks of a grid, as many at a time as there are workers. Returns an error message, or an empty string.
std::string launch(const Shape& shape, const Body& body);

}  // namespace emu
