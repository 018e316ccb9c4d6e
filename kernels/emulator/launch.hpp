// Running a grid, and finding kernels by name.
#pragma once

#include <string>

#include "block.hpp"

namespace emu {

// The kernel of this name, or nothing.
const Kernel* find_kernel(const std::string& name);

// Runs all blocks of a grid, as many at a time as there are workers. Says what went wrong, or nothing.
std::string launch(const Shape& shape, const Body& body);

}  // namespace emu
